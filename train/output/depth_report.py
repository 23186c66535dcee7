"""Report of accuracy by decoder depth, for a model that is distilled to fewer layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from edge.train.evaluate import Evaluation


class DepthReport:
    """Metrics of a model at each stage of its distillation.

    Attributes:
        rows: The stages, each with "model" (its name), "decoder_layers" and the metrics.
    """

    def __init__(self, evaluate: Callable[[PreTrainedModel], Evaluation], device: str) -> None:
        """`evaluate` gets a model that is on `device`."""
        self._evaluate = evaluate
        self._device = device
        self.rows: list[dict[str, object]] = []

    def measure(self, stage: str, model: PreTrainedModel) -> None:
        """Evaluate `model` and add it as `stage`."""
        model.to(self._device)
        self.add(stage, model, self._evaluate(model))

    def add(self, stage: str, model: PreTrainedModel, evaluation: Evaluation) -> None:
        """Add a model that is evaluated already."""
        metrics = {name: round(value, 6) for name, value in evaluation.metrics.items()}
        layers = model.config.num_decoder_layers
        self.rows.append({"model": stage, "decoder_layers": layers, **metrics})
