"""The cases of `edge bench ARTIFACTS` under pytest-benchmark: `pytest bench/ --benchmark-only`.

--benchmark-autosave and --benchmark-compare keep and compare runs. Environment variables select
what is measured: EDGE_BENCH_ARTIFACTS (folders, separated as in PATH; without it a tiny model with
random weights is exported), EDGE_BENCH_DATA (rows), EDGE_BENCH_BATCH and EDGE_BENCH_CONCURRENCY
(such as 1,8), EDGE_BENCH_RUNS, EDGE_BENCH_NEW_TOKENS, EDGE_BENCH_THREADS, EDGE_BENCH_TARGET_MS.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from edge.bench.artifacts.compatibility import check_rows, open_artifacts
from edge.bench.artifacts.results import BenchSettings
from edge.bench.artifacts.runner import FIRST_WARMUP, BenchmarkedArtifact, Case, calls_of
from edge.bench.timing.line_process import EngineFailedError, EngineMissingError
from edge.runtime.artifact import find_artifacts
from edge.runtime.engines.base import choose_threads
from edge.runtime.errors import EdgeError
from edge.runtime.rows import Row, read_rows

# Without artifacts: enough to see that it works and how large the overhead is.
_TINY = {"vocab_size": 2100, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 3}
_TINY_TARGETS = ("onnx-int8", "ctranslate2-int8", "gguf-q8_0", "torchscript-int8")
_TINY_ROWS = [Row(f"where was the number {number} built", "") for number in range(20)]
_TINY_NEW_TOKENS = 16

_elapsed = [0.0]


def engine_clock() -> float:
    """The clock of pytest-benchmark: seconds measured in the engines' processes."""
    return _elapsed[0]


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in os.environ.get(name, "1").split(","))


def _settings() -> BenchSettings:
    tokens = os.environ.get("EDGE_BENCH_NEW_TOKENS")
    given = int(tokens) if tokens else None
    return BenchSettings(
        runs=int(os.environ.get("EDGE_BENCH_RUNS", BenchSettings.runs)),
        batch=_numbers("EDGE_BENCH_BATCH"),
        concurrency=_numbers("EDGE_BENCH_CONCURRENCY"),
        new_tokens=given if _given() else given or _TINY_NEW_TOKENS,
    )


def _given() -> list[str]:
    """The folders of the artifacts in EDGE_BENCH_ARTIFACTS."""
    named = os.environ.get("EDGE_BENCH_ARTIFACTS", "")
    return [str(f) for one in named.split(os.pathsep) if one for f in find_artifacts(one)]


def _rows() -> list[Row]:
    if not _given():
        return _TINY_ROWS
    data = os.environ.get("EDGE_BENCH_DATA")
    if not data:
        raise pytest.UsageError("EDGE_BENCH_ARTIFACTS needs EDGE_BENCH_DATA, a file of rows")
    return read_rows(data)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each artifact, batch size and concurrency."""
    try:
        folders, settings = _given(), _settings()
    except (EdgeError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    names = folders or list(_TINY_TARGETS)
    short = [Path(name).name for name in names]
    ids = short if len(set(short)) == len(short) else names
    cases = [Case(*pair) for pair in itertools.product(settings.batch, settings.concurrency)]
    metafunc.parametrize("artifact", names, ids=ids)
    metafunc.parametrize("case", cases, ids=str)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports the artifact of a target such as "onnx-int8" from a model with random weights."""
    from edge.bench.engines.cache import Prepared
    from edge.bench.engines.shapes import SHAPES, write_model
    from edge.export.publish import Target

    shape = dataclasses.replace(
        SHAPES["flan-t5-small"], **_TINY, num_layers=2, num_decoder_layers=2
    )
    home = tmp_path_factory.mktemp("tiny")
    prepared = Prepared(home, write_model(shape, home / "model"))

    def make(name: str) -> Path:
        spec = prepared.artifact(Target(*name.split("-", 1)))
        prepared.make(spec)
        return spec.cache

    return make


@pytest.mark.benchmark(timer=engine_clock)
def test_latency(benchmark: Any, artifact: str, case: Case, request: pytest.FixtureRequest) -> None:
    """Time one case of one artifact, and add what pytest-benchmark does not compute."""
    settings, rows = _settings(), _rows()
    folder = Path(artifact) if _given() else request.getfixturevalue("tiny")(artifact)
    [opened] = open_artifacts([folder])
    check_rows([opened], rows)
    threads = os.environ.get("EDGE_BENCH_THREADS")
    benchmarked = BenchmarkedArtifact(
        artifact, opened, choose_threads(opened, int(threads) if threads else None)
    )
    calls = itertools.cycle(calls_of(rows, settings.runs, case.batch))
    done = 0

    def call() -> None:
        """Advance the clock by one timed call; calls are made one turn at a time."""
        nonlocal done
        if done == len(benchmarked.times_ms(case)):
            turn = list(itertools.islice(calls, case.turn_length))
            benchmarked.time_calls(case, turn, settings.new_tokens, FIRST_WARMUP if not done else 1)
        _elapsed[0] += benchmarked.times_ms(case)[done] / 1000
        done += 1

    try:
        benchmarked.start(rows[0])
        benchmark.pedantic(call, rounds=settings.runs)
    except EngineMissingError as error:
        pytest.skip(f"not installed: {error}")
    except EngineFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        benchmarked.close()
    target_ms = float(os.environ.get("EDGE_BENCH_TARGET_MS", 100))
    _describe(benchmark.extra_info, benchmarked, case, target_ms)


def _describe(
    extra: dict[str, Any], benchmarked: BenchmarkedArtifact, case: Case, target_ms: float
) -> None:
    """Add p50 to p99, the phases and the verdict."""
    result = benchmarked.result(case, target_ms)
    latency = result.latency
    assert latency is not None
    for name in ("p50", "p90", "p95", "p99"):
        extra[f"{name}_ms"] = getattr(latency, name)
    for name in ("first_token_ms", "per_token_ms", "tokens_per_second", "peak_rss_mb"):
        extra[name] = getattr(latency, name)
    extra |= {
        "format": result.format,
        "quantization": result.quantization,
        "threads": result.threads,
        "target_ms": target_ms,
        "verdict": result.verdict,
    }
