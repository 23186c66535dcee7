"""Input moments of a model's linear layers, measured for one stack at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.export.conditioning.activations import input_moments
from edge.export.conditioning.calibration import Calibration
from edge.export.conditioning.structure import input_names
from edge.export.torch_model import torch_model_of
from edge.export.weights import StoredWeights
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.platform.memory import give_back_free_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class StackMoments:
    """`InputMoments` of the calibration rows, kept for the encoder or for the decoder.

    Those of both together take more than half of the memory of the weights. Exporters quantize one
    stack after the other, so each is measured once.
    """

    def __init__(
        self,
        shape: Architecture,
        config: PretrainedConfig,
        weights: StoredWeights,
        calibration: Calibration,
    ) -> None:
        """Measure nothing yet.

        Args:
            shape: The model's shape.
            config: transformers' configuration.
            weights: The model's weights.
            calibration: The rows.
        """
        self._shape, self._config = shape, config
        self._weights, self._calibration = weights, calibration
        self._names = input_names(shape)
        self._measured: dict[str, np.ndarray] = {}

    def of(self, name: str) -> np.ndarray | None:
        """See `InputMoments.of`."""
        read = self._names.get(name)
        if read is None:
            return None
        if read not in self._measured:
            self._measure(name.partition(".")[0])
        return self._measured[read]

    def release(self) -> None:
        """See `InputMoments.release`."""
        self._measured = {}

    def _measure(self, stack: str) -> None:
        """Measure what a stack's layers read; lm_head belongs to the decoder."""
        self.release()
        give_back_free_memory()
        of_encoder = stack == "encoder"
        names = {
            weight: read
            for weight, read in self._names.items()
            if weight.startswith("encoder.") == of_encoder
        }
        model = torch_model_of(self._config, self._weights)
        self._measured = input_moments(model, self._shape, self._calibration, names)
        del model
        give_back_free_memory()
