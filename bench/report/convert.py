"""What `run_bench` returns, as the document that reports are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.bench.accuracy import copy_baseline
from edge.bench.report.document import SCHEMA_VERSION
from edge.bench.runner import Report
from edge.runtime.rows import Row


def document_of(
    report: Report,
    rows: Sequence[Row],
    *,
    path: Path | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The document of a run over `rows`, which were read from `path` by `command`."""
    values = report.as_json()
    results = []
    for result in values["results"]:
        meets = result.pop("meets_target")
        p95 = result["latency"]["p95"]
        results.append(
            {
                **result,
                "batch": 1,
                "concurrency": 1,
                "error": None,
                "verdict": "meets" if meets else "misses",
                "verdict_reason": f"p95 {p95:.1f} ms of a target of {report.target_ms:g} ms",
            }
        )
    sha256 = None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "schema_version": SCHEMA_VERSION,
        "created": report.created,
        "target_ms": report.target_ms,
        "command": command,
        "data": {"path": path and str(path), "rows": len(rows), "sha256": sha256},
        "machine": report.machine,
        "baseline": copy_baseline(rows),
        "settings": {
            "runs": max((result["latency"]["runs"] for result in results), default=None),
            "batch": 1,
            "concurrency": 1,
        },
        "results": results,
    }
