"""The time of a decoder step, from whole answers and answers of one token."""

from __future__ import annotations


def step_ms(whole_ms: float, first_ms: float, new_tokens: int) -> float:
    """Milliseconds of each token after the first.

    Args:
        whole_ms: median of answers of `new_tokens` tokens.
        first_ms: median of answers of one token, which include the encoder.
        new_tokens: at least 2.
    """
    return (whole_ms - first_ms) / (new_tokens - 1)
