"""Exponential moving average of the trainable weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edge.train.checkpoint.state import Tensors, copy_weight, to_cpu, trainable_weights


class WeightAverage:
    """An average over the steps of the last part of training; there is none before that.

    Args:
        model: The model that is trained in place.
        ratio: The part of training over which weights are averaged, 0 (off) to 1.
        decay: Weight of the old average in each update.
    """

    def __init__(self, model: torch.nn.Module, *, ratio: float, decay: float) -> None:
        self._names = [name for name, _ in trainable_weights(model)]
        self._weights = torch.nn.ParameterList(weight for _, weight in trainable_weights(model))
        self._start = 1.0 - ratio if ratio > 0 else math.inf
        self._decay = decay
        self._average: AveragedModel | None = None

    def update(self, progress: float) -> None:
        """Add the current weights if averaging has begun at `progress`, 0 to 1."""
        if progress < self._start:
            return
        if self._average is None:
            self._average = self._new_average()
        self._average.update_parameters(self._weights)

    def _new_average(self) -> AveragedModel:
        # A copy of the trainable weights alone, not of a frozen base model.
        return AveragedModel(self._weights, multi_avg_fn=get_ema_multi_avg_fn(self._decay))

    def swap(self) -> None:
        """Exchange the model's weights and the average; does nothing before there is one."""
        if self._average is None:
            return
        with torch.no_grad():
            for weight, average in zip(self._weights, self._average.parameters(), strict=True):
                held = weight.detach().clone()
                weight.copy_(average)
                average.copy_(held)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the `with` block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> Tensors:
        """The average by weight name; empty before there is one."""
        if self._average is None:
            return {}
        averages = zip(self._names, self._average.parameters(), strict=True)
        return {f"average.{name}": to_cpu(average) for name, average in averages}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: A weight is missing or has another shape.
        """
        self._average = None
        if not any(name.startswith("average.") for name in tensors):
            return
        self._average = self._new_average()
        for name, average in zip(self._names, self._average.parameters(), strict=True):
            copy_weight(average, tensors, f"average.{name}")
        self._average.n_averaged.fill_(1)  # not 0: the next update must not start a new average
