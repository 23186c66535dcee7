"""Calibration rows: which of a file are used, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.export.conditioning.calibration import (
    BUILT_IN,
    MAX_ROWS,
    Calibration,
    CalibrationRequest,
    read_calibration,
)
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME, sha256_of
from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path]) -> SourceModel:
    return SourceModel.open(random_model())


def read(source: SourceModel, data: Path | None, prompt: str = "{input}") -> Calibration:
    tokenizer = Tokenizer(source.folder / TOKENIZER_NAME, eos=1)
    request = CalibrationRequest(data) if data else None
    return read_calibration(request, source, tokenizer, Prompt(prompt), 64)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_folder_gives_its_train_rows(source: SourceModel, dataset: Path) -> None:
    rows = read(source, dataset)
    assert len(rows) <= MAX_ROWS
    assert rows.name == "train.jsonl"
    assert rows.sha256 == sha256_of(dataset / "train.jsonl")
    assert rows.available == 1500
    assert abs(len(rows.fitted) - len(rows.held_out)) <= 1
    assert len(rows.fitted) + len(rows.held_out) == len(rows)


def test_without_data_there_are_texts(source: SourceModel) -> None:
    rows = read(source, None)
    assert rows.name == BUILT_IN
    assert len(rows) >= 32
    assert all(target[-1] == 1 for target in rows.targets)


def test_long_rows_are_left_out(source: SourceModel, tmp_path: Path) -> None:
    good = [{"input": f"what is number {n}", "target": f"number {n}"} for n in range(12)]
    long = {"input": "of the old town " * 60, "target": "long"}
    rows = read(source, write(tmp_path / "rows.jsonl", [*good, long]))
    assert (len(rows), rows.available, rows.skipped) == (12, 13, 1)


def test_an_empty_row_is_named(source: SourceModel, tmp_path: Path) -> None:
    rows = [{"input": "what is it", "target": "it"}] * 12
    path = write(tmp_path / "rows.jsonl", [*rows, {"input": " ", "target": "it"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:13: column 'input' is empty"):
        read(source, path)


def test_too_few_rows(source: SourceModel, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"input": "what is it", "target": "it"}] * 30)
    with pytest.raises(DataError, match="1 of 30 rows can calibrate a model. Use at least 8 diff"):
        read(source, path)


def test_a_folder_without_train_rows(source: SourceModel, tmp_path: Path) -> None:
    write(tmp_path / "dev.jsonl", [{"input": "a", "target": "b"}] * 20)
    with pytest.raises(DataError, match=r"no train\.jsonl"):
        read(source, tmp_path)


def test_rows_of_another_task(source: SourceModel, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"input": "what is it", "target": "it"}] * 20)
    with pytest.raises(UsageError, match="task"):
        read(source, path, "[{task}] {input}")
