"""Batches that run at the same time: the same answers, in the order of the texts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import UsageError
from edge.runtime.inference.runner import _run_batches
from edge.runtime.model import load

ROWS = [[place] * (place % 7 + 1) for place in range(40)]


def echo(rows: Any) -> Any:
    return [[row[0]] for row in rows]


def test_every_row_gets_its_own_answer() -> None:
    for together in (1, 2, 8):
        assert _run_batches(echo, ROWS, 4, together) == [[row[0]] for row in ROWS]
    assert _run_batches(echo, [], 4, 2) == []


def test_so_many_batches_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3)

    def wait_for_others(rows: Any) -> Any:
        barrier.wait(timeout=30)
        return echo(rows)

    assert len(_run_batches(wait_for_others, ROWS[:12], 2, 3)) == 12


def test_the_batches_are_the_same_and_have_bounded_sizes() -> None:
    """Or answers of near ties would depend on the number of cores."""
    rows = [[0] * length for length in (512, 3, 4000, 500, 1, 9000, 2, *[300] * 40)]

    def sizes(together: int) -> list[list[int]]:
        seen: list[list[int]] = []

        def note(batch: Any) -> Any:
            seen.append([len(row) for row in batch])
            return echo(batch)

        _run_batches(note, rows, 64, together)
        return sorted(seen)

    assert sizes(1) == sizes(3)
    assert max(max(batch) * len(batch) for batch in sizes(1) if len(batch) > 1) <= 8192
    assert [9000] in sizes(1)


def test_an_error_ends_the_call_and_later_batches_do_not_run() -> None:
    started: list[int] = []

    def fail(rows: Any) -> Any:
        started.append(len(rows))
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        _run_batches(fail, [[0]] * 400, 1, 2)
    assert len(started) < 100


def test_models_answer_the_same(artifacts: Path, dataset: Path) -> None:
    texts = [json.loads(line)["input"] for line in (dataset / "dev.jsonl").open()][:50]
    for name in ("onnx-int8", "gguf-q8_0"):
        with load(artifacts / name) as model:
            plain = [answer.text for answer in model.generate(texts, batch_size=8)]
            found = model.generate(texts, batch_size=8, parallel_batches=3)
            assert [answer.text for answer in found] == plain
            with pytest.raises(UsageError, match="parallel_batches must be at least 1"):
                model.generate(texts, parallel_batches=0)


def test_workers_of_one_file(
    edge: Callable[..., Any],
    assert_refused: Callable[..., str],
    artifacts: Path,
    dataset: Path,
    tmp_path: Path,
) -> None:
    outputs = [tmp_path / f"{workers}.jsonl" for workers in (1, 2)]
    for workers, output in enumerate(outputs, start=1):
        call = ("run", artifacts / "onnx-int8", "--input", dataset / "dev.jsonl")
        assert edge(*call, "--output", output, "--workers", workers).status == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    call = ("run", artifacts / "gguf-q8_0", "--input", dataset / "dev.jsonl", "--workers", 2)
    assert "runs one batch at a time" in assert_refused(*call)
    assert "--workers needs --input" in assert_refused(*call[:2], "text", "--workers", 2)
