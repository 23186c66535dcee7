"""A report's document of a real run: what reports are tested with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.bench.artifacts.runner import run_bench
from edge.runtime.rows import Row

HOSTILE = "<img src=x onerror=alert(1)>|`**[a](b)**` $x^$ </svg></script> \x1b[31m\ud800 {{ 7*7 }}"


def measured_document(
    folders: Sequence[Path], rows: Sequence[Row], target_ms: float
) -> dict[str, Any]:
    """Artifacts on rows, as if these were a file's."""
    command = "edge bench artifacts --data 'my data/dev.jsonl'"
    document = run_bench(folders, rows, target_ms=target_ms, command=command).as_json()
    data = {"path": "my data/dev.jsonl", "rows": len(rows), "sha256": "0" * 64}
    return document | {"created": "2026-01-02T03:04:05+00:00", "data": data}
