"""What a benchmark report measured of one artifact, for the results of its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from edge.bench.report.results import Document, Result, labels
from edge.runtime.artifact.manifest import Manifest
from edge.runtime.errors import DataError
from edge.train.output.model_card import SCORES, Measurement

_HUB = "hub:"


def measurements_of(document: Document, manifest: Manifest, path: str | Path) -> list[Measurement]:
    """The accuracy and latency of an artifact, at the smallest batch and concurrency.

    A result belongs to the artifact if format, quantization and size in bytes are the same.

    Args:
        document: the JSON document of `edge bench`.
        manifest: the artifact's manifest.
        path: the document's file, for the error.

    Raises:
        DataError: the report has no complete result of this artifact.
    """
    own = [one for one in document["results"] if _is_of(one, manifest)]
    complete = [one for one in own if one["accuracy"] and one["latency"] and not one["error"]]
    if not complete:
        found = "only an incomplete" if own else "no"
        raise DataError(
            f"{found} result of this artifact ({manifest.format} {manifest.quantization},"
            f" {manifest.size:,} bytes). It has: {', '.join(labels(document)) or 'nothing'}."
            " Measure it with edge bench --json",
            path=path,
        )
    result = min(complete, key=lambda one: (one["batch"], one["concurrency"]))
    name, kind, split = _data(document["data"].get("path"))

    def measured(metric: str, shown: str, value: float, digits: int) -> Measurement:
        return Measurement(metric, shown, round(float(value), digits), name, kind, split)

    scores = [
        measured(metric, shown, result["accuracy"][field], 4)
        for field, (metric, shown) in SCORES.items()
        if result["accuracy"].get(field) is not None
    ]
    where = _conditions(result, document["machine"])
    times = [
        measured("latency", f"Latency {field} (ms; {where})", result["latency"][field], 2)
        for field in ("p50", "p95")
    ]
    return [*scores, *times]


def _is_of(result: Result, manifest: Manifest) -> bool:
    """Whether a result is of the artifact; the size is stored in 10⁶ bytes."""
    return (
        result["format"] == manifest.format
        and result["quantization"] == manifest.quantization
        and round((result.get("size_mb") or 0) * 1e6) == manifest.size
    )


def _conditions(result: Result, machine: Mapping[str, Any]) -> str:
    threads, batch = result["threads"], result["batch"]
    plural = "" if threads == 1 else "s"
    text = f"batch {batch}, {threads} thread{plural}"
    cpu = machine.get("cpu")
    return f"{text}, {cpu}" if isinstance(cpu, str) and cpu else text


def _data(path: str | None) -> tuple[str, str, str | None]:
    """Name, type and split of the data, without its folders."""
    if path is None:
        return "rows", "custom", None
    if path.startswith(_HUB):
        name, _, split = path.removeprefix(_HUB).partition("#")
        return name, name.partition(":")[0], split or None
    return PurePath(path).name, "custom", None
