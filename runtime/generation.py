"""What `Model` gives back: an answer, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one call; a batch's rows share them."""

    tokenize_ms: float
    generate_ms: float
    detokenize_ms: float

    @property
    def total_ms(self) -> float:
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

    `token_ids` leave out the start token and eos; `score` is the mean log-probability per token in
    nats (eos counted; with another length_penalty, the sum divided by length ** length_penalty);
    `finish_reason` is "eos", "length", "stop" or "fallback" (the model was not asked);
    `input_tokens` counts eos; `truncated` says that the input was cut to the limit; `steps` is how
    many decoder steps the answer took where tokens were drafted from the input
    (prompt_lookup_num_tokens), else None. `alternatives` holds the further sequences of
    num_return_sequences, best first. `parts` is into how many the input was split (on_long
    "chunk"); `retried` says that the first answer did not pass the output's check.
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

    @property
    def output_tokens(self) -> int:
        """How many tokens the decoder made for this text, eos counted."""
        return len(self.token_ids) + (self.finish_reason == "eos")


def join(answers: list[Generation], separators: list[str]) -> Generation:
    """The answers to the parts of one input as one answer; `separators` stand between them.

    Token counts and steps add up, the score is the mean over all tokens, and the worst way to end
    is how the whole ended. Alternatives are of parts and are left out.
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
        steps=sum(steps) if steps else None,
        alternatives=(),
        parts=len(answers),
    )
