"""A sequence while it is generated, and the hypothesis that it becomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.runtime.engines.base import Hypothesis, Vocabulary
from edge.runtime.engines.logits import token_log_prob
from edge.runtime.engines.matcher import Matcher
from edge.runtime.options import GenerationOptions


@dataclass
class GeneratedRow:
    """One sequence during a search: its tokens so far, start token first."""

    past: list[int]
    matcher: Matcher | None = None
    log_prob: float = 0.0
    finish_reason: str = ""

    def append(self, token: int, logits: np.ndarray) -> None:
        """Add a token that was chosen from `logits` [vocab]."""
        self.log_prob += token_log_prob(logits, token)
        self.past.append(token)

    def forced(self, options: GenerationOptions, vocabulary: Vocabulary) -> list[int]:
        """The tokens that must follow, up to an end token; the matcher is after them."""
        tokens: list[int] = []
        room = options.max_new_tokens - len(self.past)  # one token is left for the next step
        while self.matcher is not None and len(tokens) < room:
            token = self.matcher.forced()
            if token is None:
                break
            tokens.append(token)
            if token in vocabulary.ends:
                break
            self.matcher.advance(token)
        return tokens

    def hypothesis(self, vocabulary: Vocabulary, length_penalty: float) -> Hypothesis:
        """The finished sequence; without a reason it ended at its longest length."""
        return hypothesis_of(
            self.past, self.log_prob, self.finish_reason or "length", vocabulary, length_penalty
        )


def hypothesis_of(
    past: list[int],
    log_prob: float,
    finish_reason: str,
    vocabulary: Vocabulary,
    length_penalty: float,
) -> Hypothesis:
    """The hypothesis of tokens `past`, start token first, and their summed log-probability."""
    tokens = past[1:]
    score = log_prob / max(1, len(tokens)) ** length_penalty
    if finish_reason == "eos":
        return Hypothesis(tuple(tokens[:-1]), score, finish_reason, end_token=tokens[-1])
    return Hypothesis(tuple(tokens), score, finish_reason)
