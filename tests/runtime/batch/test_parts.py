"""Parts of a file: every row gets its own answer, several batches are answered at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.batch.job import BatchJob, InputRow, iter_batches
from edge.runtime.batch.parts import answer_parts
from edge.runtime.errors import DataError, InputTooLongError
from edge.runtime.model import load

TEXTS = [f"what is {'the ' * (n % 9)}river {n}" if n % 10 else " " for n in range(150)]


class Echo:
    """Answers each text with itself; `barrier` makes a call wait until others run."""

    def __init__(self, barrier: threading.Barrier | None = None) -> None:
        self.batches: list[list[str]] = []
        self._barrier = barrier

    def generate(self, texts: list[str], **_: Any) -> list[str]:
        if self._barrier is not None:
            self._barrier.wait(timeout=30)
        if "too long" in texts:
            raise InputTooLongError("too long")
        self.batches.append(texts)
        return texts


def parts(texts: list[str], size: int = 70) -> Iterator[list[InputRow]]:
    return iter_batches([InputRow(text) for text in texts], size)


def answers(model: Any, texts: list[str], **options: Any) -> list[Any]:
    found = answer_parts(model, BatchJob(Path("artifact")), parts(texts), **options)
    return [answer for rows, part in found for answer in part]


def test_every_row_gets_its_own_answer_and_blank_ones_none() -> None:
    expected = [text if text.strip() else None for text in TEXTS]
    for workers in (1, 2, 5):
        done: list[int] = []
        assert answers(Echo(), TEXTS, workers=workers, answered=done.append) == expected
        assert sum(done) == len(TEXTS)
        assert max(done) <= 32
    assert answers(Echo(), [], workers=2) == []


def test_batches_are_the_same_for_any_number_of_workers() -> None:
    """Or near ties, and samples, would depend on the number of cores."""
    one, three = Echo(), Echo()
    answers(one, TEXTS)
    answers(three, TEXTS, workers=3)
    assert sorted(one.batches) == sorted(three.batches)
    lengths = [[len(text) for text in batch] for batch in one.batches]
    assert all(batch == sorted(batch, reverse=True) for batch in lengths)


def test_so_many_batches_run_at_the_same_time() -> None:
    """Those of the next part, too: 140 rows are two parts of three batches each."""
    texts = [f"text {n}" for n in range(140)]
    assert answers(Echo(threading.Barrier(6)), texts, workers=6) == texts


@pytest.mark.parametrize("workers", [1, 3])
def test_parts_before_an_error_are_kept_and_later_batches_do_not_run(workers: int) -> None:
    texts = [f"text {n}" for n in range(7000)]
    texts[100] = "too long"
    model = Echo()
    job = BatchJob(Path("artifact"))
    found = answer_parts(model, job, parts(texts), workers=workers)  # type: ignore[arg-type]
    _, first = next(found)
    assert first == texts[:70]
    with pytest.raises(InputTooLongError):
        next(found)
    assert len(model.batches) <= 10


@pytest.mark.parametrize("workers", [1, 3])
def test_parts_before_a_row_that_cannot_be_read_are_answered(workers: int) -> None:
    def broken() -> Iterator[list[InputRow]]:
        yield [InputRow("a"), InputRow("b")]
        raise DataError("malformed")

    job = BatchJob(Path("artifact"))
    found = answer_parts(Echo(), job, broken(), workers=workers)  # type: ignore[arg-type]
    assert next(found)[1] == ["a", "b"]
    with pytest.raises(DataError, match="malformed"):
        next(found)


def test_workers_of_one_file(
    edge: Callable[..., Any],
    assert_refused: Callable[..., str],
    artifacts: Path,
    dataset: Path,
    tmp_path: Path,
) -> None:
    texts = [json.loads(line)["input"] for line in (dataset / "dev.jsonl").open()]
    with load(artifacts / "onnx-int8") as model:
        expected = [answer.text for answer in model.generate(texts)]
    for workers in (1, 2):
        output = tmp_path / f"{workers}.jsonl"
        call = ("run", artifacts / "onnx-int8", "--input", dataset / "dev.jsonl")
        assert edge(*call, "--output", output, "--workers", workers).status == 0
        assert [json.loads(line)["output"] for line in output.open()] == expected
    call = ("run", artifacts / "gguf-q8_0", "--input", dataset / "dev.jsonl", "--workers", 2)
    assert "runs one batch at a time" in assert_refused(*call, "--output", tmp_path / "no.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"1.jsonl", "2.jsonl"}
    assert "--workers needs --input" in assert_refused(*call[:2], "text", "--workers", 2)
