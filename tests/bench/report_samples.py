"""A report's document of a real run, made without the runner: what reports are tested with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.accuracy import copy_baseline, measure_accuracy
from edge.bench.agreement import agree
from edge.bench.machine import machine_info
from edge.runtime import load
from edge.runtime.rows import Row

RUNS = 100
HOSTILE = "<img src=x onerror=alert(1)>|`**[a](b)**` $x^$ </svg></script> \x1b[31m\ud800 {{ 7*7 }}"


def measured_document(
    folders: Sequence[Path], rows: Sequence[Row], target_ms: float
) -> dict[str, Any]:
    """Accuracy and `RUNS` timed answers of each artifact, one after the other."""
    accuracies, results, manifests = [], [], []
    for folder in folders:
        with load(folder) as model:
            accuracies.append(measure_accuracy(model, rows))
            manifests.append(model.artifact.manifest)
            samples, tokens = [], 0
            for run in range(RUNS):
                started = time.perf_counter()
                answer = model.generate(rows[run % len(rows)].input, num_beams=1)
                samples.append((time.perf_counter() - started) * 1000)
                tokens += answer.output_tokens
        quantiles = {f"p{p}": float(np.percentile(samples, p)) for p in (25, 50, 75, 95)}
        results.append(
            {
                "artifact": str(folder),
                "format": manifests[-1].format,
                "quantization": manifests[-1].quantization,
                "size_mb": manifests[-1].size / 1e6,
                "threads": 1,
                "batch": 1,
                "concurrency": 1,
                "error": None,
                "latency": {
                    "runs": RUNS,
                    "samples_ms": samples,
                    **quantiles,
                    "new_tokens": tokens / RUNS,
                    "encode_ms": None,
                },
                "verdict": "meets" if max(samples) <= target_ms else "misses",
                "verdict_reason": None,
            }
        )
    names = [str(folder) for folder in folders]
    agreed = agree(names, manifests, accuracies, rows)
    return {
        "schema_version": 2,
        "created": "2026-01-02T03:04:05+00:00",
        "target_ms": target_ms,
        "command": "edge bench artifacts --data 'my data/dev.jsonl'",
        "data": {"path": "my data/dev.jsonl", "rows": len(rows), "sha256": "0" * 64},
        "machine": machine_info(),
        "baseline": copy_baseline(rows),
        "settings": {"runs": RUNS, "seconds": None, "batch": [1], "concurrency": [1]},
        "results": [
            {**result, "accuracy": one and one.as_json()}
            for result, one in zip(results, agreed, strict=True)
        ],
    }
