"""Input moments of a model's linear layers, measured when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.export.conditioning.activations import input_moments
from edge.export.conditioning.calibration import Calibration
from edge.export.conditioning.structure import in_encoder, input_names
from edge.export.torch_model import torch_model_of
from edge.export.weights import StoredWeights
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.platform.memory import give_back_free_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class StoredMoments:
    """`InputMoments` of the calibration rows, in temporary files.

    Those of encoder and decoder together take more than half of the memory of the weights, so each
    stack is measured by itself, and what is not in use is in a file.
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
        self._stored: dict[bool, StoredWeights] = {}  # of the encoder, of the decoder

    def of(self, name: str) -> np.ndarray | None:
        """See `InputMoments.of`."""
        read = self._names.get(name)
        if read is None:
            return None
        of_encoder = in_encoder(name)
        if of_encoder not in self._stored:
            self._stored[of_encoder] = StoredWeights(self._measured(of_encoder))
            give_back_free_memory()
        return self._stored[of_encoder][read]

    def _measured(self, of_encoder: bool) -> dict[str, np.ndarray]:
        """What one stack's layers read; lm_head belongs to the decoder."""
        give_back_free_memory()
        names = {
            weight: read for weight, read in self._names.items() if in_encoder(weight) == of_encoder
        }
        model = torch_model_of(self._config, self._weights)
        return input_moments(model, self._shape, self._calibration, names)
