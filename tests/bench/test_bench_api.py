"""The functions of `edge.bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edge.bench
from edge.runtime import Artifact
from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import read_rows


def test_bench_takes_folders_files_and_rows(artifacts: Path, dataset: Path) -> None:
    settings = {"runs": 30, "min_time": 0.0, "limit": 12, "target_ms": 60_000}
    report = edge.bench.bench(artifacts / "onnx-int8", dataset, **settings)  # type: ignore[arg-type]
    assert report.rows == 12
    assert report.data.path == str(dataset / "dev.jsonl")
    assert report.winner is not None
    assert report.winner.reason.startswith("onnx int8 is the only artifact that may meet")
    folders = [str(artifacts / "onnx-int8"), artifacts / "gguf-q8_0"]
    rows = read_rows(dataset / "dev.jsonl")
    report = edge.bench.bench(folders, rows, **settings)  # type: ignore[arg-type]
    assert [result.format for result in report.results] == ["onnx", "gguf"]
    assert report.data.path is None
    assert report.winner is not None
    assert report.as_json()["winner"]["result"] == report.winner.result


def test_compile_writes_the_artifact(trained: Path, dataset: Path, tmp_path: Path) -> None:
    outcome = edge.bench.compile(
        trained,
        dataset / "dev.jsonl",
        tmp_path / "best",
        target_ms=60_000,
        formats=["onnx"],
        quantizations=["int8"],
        threads=[1],
        drafts=False,
    )
    assert outcome.meets_target, outcome.verdict
    assert Artifact.open(tmp_path / "best").manifest.quantization == "int8"


def test_bad_values_are_refused(artifacts: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--runs"):
        edge.bench.bench(artifacts / "onnx-int8", dataset, runs=1)
    with pytest.raises(DataError):
        edge.bench.bench(artifacts / "onnx-int8", tmp_path / "none.jsonl")


def test_importing_is_cheap() -> None:
    code = (
        "import sys, edge.bench; edge.bench.compile;"
        "sys.exit(bool({'numpy', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
