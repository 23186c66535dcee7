"""`pytest bench/ --benchmark-only` measures the same cases; the suite does not collect them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _pytest(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    # pytest-benchmark measures nothing in a run of several workers, which this one is not.
    inherited = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**inherited, **{name: str(value) for name, value in environment.items()}},
    )


def test_cases_are_measured_with_their_p95(artifacts: Path, dataset: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    ended = _pytest(
        "bench/", "--benchmark-only", f"--benchmark-json={saved}",
        EDGE_BENCH_ARTIFACTS=artifacts / "onnx-int8",
        EDGE_BENCH_DATA=dataset / "dev.jsonl",
        EDGE_BENCH_BATCH="1,4",
        EDGE_BENCH_RUNS=90,
        EDGE_BENCH_TARGET_MS=60_000,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    found: list[dict[str, Any]] = json.loads(saved.read_text())["benchmarks"]
    names = [one["name"] for one in found]
    assert names == [
        "test_latency[onnx-int8-batch 1, concurrency 1]",
        "test_latency[onnx-int8-batch 4, concurrency 1]",
    ]
    for one in found:
        extra, stats = one["extra_info"], one["stats"]
        assert stats["rounds"] == 90
        # Measured in the engine's process, not in pytest's.
        assert stats["median"] * 1000 == pytest.approx(extra["p50_ms"])
        assert extra["p50_ms"] <= extra["p95_ms"] <= stats["max"] * 1000 + 1e-9
        assert extra["verdict"] == "meets"


@pytest.mark.slow
def test_a_tiny_model_is_exported_by_default() -> None:
    ended = _pytest("bench/", "--benchmark-only", "-k", "onnx", EDGE_BENCH_RUNS=30)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


def test_the_suite_does_not_collect_them() -> None:
    config = (ROOT / "pyproject.toml").read_text()
    assert 'testpaths = ["tests"]' in config
    assert not list((ROOT / "tests").rglob("test_latency.py"))
    refused = _pytest("bench/", EDGE_BENCH_ARTIFACTS=ROOT)
    assert refused.returncode != 0
    assert "is not an artifact" in refused.stdout + refused.stderr
