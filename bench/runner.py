"""Accuracy and latency of several artifacts on one data set, and the verdict on each."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.accuracy import Accuracy, measure_accuracy
from edge.bench.agreement import agree
from edge.bench.latency import MIN_RUNS, Latency, measure_latency
from edge.bench.machine import machine_info
from edge.runtime.errors import UsageError
from edge.runtime.model import load
from edge.runtime.rows import Row
from edge.runtime.textpath import check_text_path

# Called with (phase, artifact, done, of); the phase is "accuracy" or "latency".
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class Result:
    """One line of the benchmark's table."""

    artifact: str
    format: str
    quantization: str
    size_mb: float
    threads: int
    accuracy: Accuracy
    latency: Latency
    meets_target: bool


@dataclass(frozen=True)
class Report:
    results: list[Result]
    target_ms: float
    rows: int
    machine: dict[str, Any]
    created: str

    @property
    def any_meets_target(self) -> bool:
        return any(result.meets_target for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """The report without the predictions; docs/bench.md describes the fields."""
        values = dataclasses.asdict(self)
        for result in values["results"]:
            del result["accuracy"]["predictions"]
        return {"schema_version": 1, **values}


def run_bench(
    artifacts: Sequence[str | Path],
    rows: Sequence[Row],
    *,
    target_ms: float = 100.0,
    runs: int = 100,
    threads: int | None = None,
    reference: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Measure artifacts on rows that have targets.

    An artifact meets the target when its p95 does. Answers are compared with those of
    `reference`, an artifact or model folder, else of the float32 artifact of the same model.

    Raises:
        UsageError: fewer runs than a median needs, or no artifact.
        ArtifactError, MissingExtraError: an artifact that can't be loaded, or whose tokenizer or
            prompt is not the recorded one.
    """
    if runs < MIN_RUNS:
        raise UsageError(f"--runs must be at least {MIN_RUNS}, not {runs}: fewer make no median")
    if not artifacts:
        raise UsageError("name at least one artifact")
    notify = on_progress or (lambda *_: None)
    names = [str(path) for path in artifacts]
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(load(path, threads=threads)) for path in artifacts]
        for model in models:
            check_text_path(model.artifact)
        accuracies = []
        for name, model in zip(names, models, strict=True):

            def accuracy_done(done: int, name: str = name) -> None:
                notify("accuracy", name, done, len(rows))

            accuracies.append(measure_accuracy(model, rows, accuracy_done))
        manifests = [model.artifact.manifest for model in models]
        accuracies = agree(names, manifests, accuracies, rows, reference)
        latencies = measure_latency(
            models,
            rows,
            runs=runs,
            on_progress=lambda done: notify("latency", "", done, runs),
        )
        results = [
            Result(
                artifact=name,
                format=model.artifact.manifest.format,
                quantization=model.artifact.manifest.quantization,
                size_mb=model.artifact.manifest.size / 1e6,
                threads=model.engine.threads,
                accuracy=accuracy,
                latency=latency,
                meets_target=latency.p95 <= target_ms,
            )
            for name, model, accuracy, latency in zip(
                names, models, accuracies, latencies, strict=True
            )
        ]
    return Report(
        results=results,
        target_ms=target_ms,
        rows=len(rows),
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
