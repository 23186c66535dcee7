"""A loss that ran away: noticed at its step, and told with its likely cause."""

from __future__ import annotations

import math
from typing import Any

import torch

from edge.runtime.errors import EdgeError


class DivergenceWatch:
    """Raises when the loss is no number, or when what had been learned is lost again.

    A model that guesses blindly among V pieces has a loss of ln V. A smoothed loss that was below
    that and is now above twice that means worse than knowing nothing: it exploded.
    """

    def __init__(self, model: torch.nn.Module, vocab_size: int, precision: str) -> None:
        self._model = model
        self._blind = math.log(vocab_size)
        self._precision = precision
        self._had_learned = False

    def check(self, step: int, loss: float, smoothed: float, learning_rate: float | None) -> None:
        """
        Raises:
            EdgeError: training diverged; with the step and the likely cause.
        """
        if not math.isfinite(loss):
            raise EdgeError(
                f"training diverged: the loss is {loss} at step {step};"
                f" {self._cause(learning_rate)}"
            )
        self._had_learned = self._had_learned or smoothed < self._blind
        if self._had_learned and smoothed > 2 * self._blind:
            raise EdgeError(
                f"training diverged: the loss rose to {smoothed:.1f} by step {step}, above the"
                f" {self._blind:.1f} of blind guessing; {_too_fast(learning_rate)}"
            )

    def _cause(self, learning_rate: float | None) -> str:
        weights: Any = (weight for weight in self._model.parameters() if weight.is_floating_point())
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            return f"weights have become infinite or NaN: {_too_fast(learning_rate)}"
        if self._precision != "fp32":
            return (
                "the weights are sound, so values between the layers overflowed: try --precision"
                " fp32, or a lower --learning-rate"
            )
        return f"values between the layers overflowed: {_too_fast(learning_rate)}"


def _too_fast(learning_rate: float | None) -> str:
    at = "" if learning_rate is None else f" (it was {learning_rate:.2g} there)"
    return f"try a lower --learning-rate{at}, a longer --warmup-ratio or a lower --max-grad-norm"
