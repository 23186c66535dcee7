"""Result types of `Model`: an answer and its timings."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timings:
    """Durations in milliseconds of one call; all rows of a call have the same."""

    tokenize_ms: float
    generate_ms: float
    detokenize_ms: float

    @property
    def total_ms(self) -> float:
        """The sum of all stages."""
        return self.tokenize_ms + self.generate_ms + self.detokenize_ms

    def __add__(self, other: Timings) -> Timings:
        return Timings(
            self.tokenize_ms + other.tokenize_ms,
            self.generate_ms + other.generate_ms,
            self.detokenize_ms + other.detokenize_ms,
        )


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: The answer's text.
        token_ids: Its token ids, without the start token and eos.
        score: Mean log-probability per token in nats, eos included; with a length_penalty other
            than 1, the sum divided by length ** length_penalty.
        finish_reason: "eos", "length", "stop" (a stop string or the callback) or "fallback" (the
            engine did not run).
        input_tokens: Length of the input in tokens, eos included.
        truncated: Whether the input, or a part of it, was truncated to the limit.
        timings: Durations of the call.
        steps: Number of decoder steps if tokens were drafted from the input
            (prompt_lookup_num_tokens), else None.
        alternatives: The other sequences of num_return_sequences, best first.
        parts: Number of parts that the input was split into (on_long "chunk").
        retried: Whether the first answer failed the output check.
        end_token_ids: The end token, if the decoder generated one; of an input that was split,
            those of its parts.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float
    finish_reason: str
    input_tokens: int
    truncated: bool
    timings: Timings
    steps: int | None = None
    alternatives: tuple[Generation, ...] = ()
    parts: int = 1
    retried: bool = False
    end_token_ids: tuple[int, ...] = ()

    @property
    def output_tokens(self) -> int:
        """Number of tokens that the decoder generated, end tokens included."""
        return len(self.token_ids) + len(self.end_token_ids)


def join(answers: list[Generation], separators: list[str]) -> Generation:
    """Join the answers to the parts of one input into one answer.

    Token counts and steps add up, and the score is the mean over all tokens. The finish reason is
    the first of "length", "stop" and "eos" that occurs. The answer is truncated or retried if one
    of its parts is. Timings are those of the call. Alternatives are dropped.

    Args:
        answers: The answers to the parts, at least one, all of one call.
        separators: The texts between them, one fewer than answers.
    """
    if len(answers) == 1:
        return answers[0]
    first, *others = answers
    text = first.text
    for separator, answer in zip(separators, others, strict=True):
        text += separator + answer.text
    weights = [max(1, answer.output_tokens) for answer in answers]
    total = sum(a.score * weight for a, weight in zip(answers, weights, strict=True))
    reasons = {answer.finish_reason for answer in answers}
    steps = [answer.steps for answer in answers if answer.steps is not None]
    return replace(
        first,
        text=text,
        token_ids=tuple(token for answer in answers for token in answer.token_ids),
        score=total / sum(weights),
        finish_reason=next(r for r in ("length", "stop", "eos") if r in reasons),
        input_tokens=sum(answer.input_tokens for answer in answers),
        truncated=any(answer.truncated for answer in answers),
        steps=sum(steps) if steps else None,
        alternatives=(),
        parts=len(answers),
        retried=any(answer.retried for answer in answers),
        end_token_ids=tuple(token for answer in answers for token in answer.end_token_ids),
    )
