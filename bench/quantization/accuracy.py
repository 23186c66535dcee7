"""Accuracy of one model's artifacts, with and without conditioning, on rows with targets."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.export.conditioning.calibration import CalibrationRequest
from edge.export.options import ExportOptions
from edge.export.publish import Publisher
from edge.export.source import SourceModel
from edge.export.target import Target
from edge.runtime.errors import EdgeError
from edge.runtime.model import load
from edge.runtime.rows import Row

TARGETS = (
    Target("torchscript", "int8"),
    Target("ctranslate2", "int8"),
    Target("onnx", "int8"),
    Target("onnx", "int4"),
    Target("gguf", "q8_0"),
    Target("gguf", "q4_k_m"),
)
REFERENCE = Target("onnx", "float32")
FOUR_BITS = ("int4", "q4_0", "q4_k_m", "int4_mixed")
# What an artifact may lose: (eval_loss in nats per token, ratio of changed answers).
LIMITS = {8: (0.002, 0.015), 4: (0.008, 0.04)}
_BATCH = 32


@dataclass(frozen=True)
class ArtifactAccuracy:
    """One artifact on the rows.

    Attributes:
        artifact: Format and quantization.
        conditioned: Whether the weights were conditioned.
        exact: Answers that are the target.
        loss: Mean negative log-probability of the targets' tokens, in nats.
        identical: Answers that are those of the float32 artifact.
        rows: Number of rows.
        seconds: Time of the export.
        parity_error: Mean log-probability error of the parity check, in nats per token.
        refused: Whether the parity check's own limit refuses the artifact.
        error: Why there are no figures.
    """

    artifact: str
    conditioned: bool
    exact: int = 0
    loss: float = 0.0
    identical: int = 0
    rows: int = 0
    seconds: float = 0.0
    parity_error: float = 0.0
    refused: bool = False
    error: str = ""

    def meets(self, reference: ArtifactAccuracy) -> bool:
        """Whether it stays within `LIMITS` of the float32 artifact."""
        bits = 4 if self.artifact.split("-")[1] in FOUR_BITS else 8
        loss, changed = LIMITS[bits]
        return (
            not self.error
            and not self.refused
            and self.loss <= reference.loss + loss
            and self.identical >= (1 - changed) * self.rows
        )

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def measure_model(
    source: SourceModel, rows: Sequence[Row], calibrate: Path, targets: Sequence[Target] = TARGETS
) -> Iterator[ArtifactAccuracy]:
    """Export and measure a model's artifacts: float32 first, then each target both ways.

    Args:
        source: The model.
        rows: Rows with targets, none of them in `calibrate`.
        calibrate: Training rows.
        targets: What to export.
    """
    answers: list[str] = []
    for conditioned in (False, True):
        # The limits of the parity check are compared afterwards: a refusal is a figure, too.
        options = ExportOptions(
            max_error=float("inf"),
            mean_error=float("inf"),
            condition=conditioned,
            calibrate=CalibrationRequest(calibrate),
        )
        publisher = Publisher(source, options)
        for target in (*(() if conditioned else (REFERENCE,)), *targets):
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="edge-quantization-") as folder:
                try:
                    exported = publisher.publish(target, Path(folder) / "artifact")
                except EdgeError as error:
                    yield ArtifactAccuracy(target.name, conditioned, error=str(error))
                    continue
                seconds = time.perf_counter() - started
                found, loss = _answer(exported.folder, rows)
            answers = answers or found
            tolerance = publisher.exporter(target).tolerances[target.quantization]
            yield ArtifactAccuracy(
                target.name,
                conditioned,
                exact=sum(
                    answer.strip() == (row.target or "").strip()
                    for answer, row in zip(found, rows, strict=True)
                ),
                loss=loss,
                identical=sum(one == other for one, other in zip(found, answers, strict=True)),
                rows=len(rows),
                seconds=seconds,
                parity_error=exported.parity.mean_error,
                refused=not exported.parity.mean_error <= tolerance.mean_error,
            )


def _answer(folder: Path, rows: Sequence[Row]) -> tuple[list[str], float]:
    """Greedy answers, and the mean loss of the targets."""
    inputs, targets = [row.input for row in rows], [row.target or "" for row in rows]
    with load(folder) as model:
        found = model.generate(inputs, batch_size=_BATCH, num_beams=1, do_sample=False)
        scores = model.score_tokens(
            model.tokenizer.encode(inputs), model.tokenizer.encode(targets), batch_size=_BATCH
        )
    return [answer.text for answer in found], -float(np.concatenate(scores).mean())
