"""Detection of a diverged training run, with the likely cause."""

from __future__ import annotations

import math
from typing import Any

import torch

from edge.runtime.errors import EdgeError


class DivergenceDetector:
    """Raises an error if the loss is not finite, or if it explodes after the model had learned.

    A model that guesses uniformly among V tokens has a loss of ln V. A smoothed loss that was below
    it and has risen above twice that value is an explosion.

    Args:
        model: Its weights are searched for the cause.
        vocab_size: V.
        precision: "bf16" or "fp32", that the model computes in.
    """

    def __init__(self, model: torch.nn.Module, vocab_size: int, precision: str) -> None:
        self._model = model
        self._uniform_loss = math.log(vocab_size)
        self._precision = precision
        self._had_learned = False

    def check(self, step: int, loss: float, smoothed: float, learning_rate: float | None) -> None:
        """Check the loss of `step`, in nats per label.

        Raises:
            EdgeError: Training diverged; the message gives the step and the likely cause.
        """
        if not math.isfinite(loss):
            raise EdgeError(
                f"training diverged: the loss is {loss} at step {step};"
                f" {self._cause(learning_rate)}"
            )
        self._had_learned = self._had_learned or smoothed < self._uniform_loss
        if self._had_learned and smoothed > 2 * self._uniform_loss:
            raise EdgeError(
                f"training diverged: the loss rose to {smoothed:.1f} by step {step}, above the"
                f" {self._uniform_loss:.1f} of random guessing; {_too_fast(learning_rate)}"
            )

    def _cause(self, learning_rate: float | None) -> str:
        weights: Any = (weight for weight in self._model.parameters() if weight.is_floating_point())
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            return f"weights became infinite or NaN: {_too_fast(learning_rate)}"
        if self._precision != "fp32":
            return (
                "all weights are finite, so activations overflowed: try --precision fp32 or a lower"
                " --learning-rate"
            )
        return f"activations overflowed: {_too_fast(learning_rate)}"


def _too_fast(learning_rate: float | None) -> str:
    at = "" if learning_rate is None else f" (it was {learning_rate:.2g} at that step)"
    return f"try a lower --learning-rate{at}, a higher --warmup-ratio or a lower --max-grad-norm"
