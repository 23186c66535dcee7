"""The file that `edge run --output` names: nothing else is replaced, nothing else promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.batch.journal import journal_path
from edge.runtime.batch.single_file import check_output
from edge.runtime.errors import OutputExistsError, UsageError

Edge = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "the cat"}\n{"input": "a dog"}\n')
    return path


def test_an_unrelated_file_is_replaced_with_force_only(
    edge: Edge, assert_refused: Refused, artifacts: Path, rows: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    output.write_text("my notes\n")
    call = ("run", artifacts / "onnx-int8", "--input", rows, "--output", output)
    line = assert_refused(*call)
    assert "already exists" in line
    assert "--force" in line
    assert output.read_text() == "my notes\n"
    assert edge(*call, "--force").status == 0
    assert [json.loads(one)["input"] for one in output.read_text().splitlines()] == [
        "the cat",
        "a dog",
    ]
    assert "already exists" in assert_refused(*call)
    output.write_text("")  # of mktemp
    assert edge(*call).status == 0


def test_an_unfinished_run_that_replaces_an_output_continues(tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    output.write_text("old\n")
    with pytest.raises(OutputExistsError):
        check_output(rows, output)
    check_output(rows, output, force=True)
    journal_path(output).write_text("")
    check_output(rows, output)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.json", "a.jsonl.gz", "a.XLSX"])
def test_the_suffix_of_another_format_is_refused(
    assert_refused: Refused, artifacts: Path, rows: Path, tmp_path: Path, name: str
) -> None:
    line = assert_refused(
        "run", artifacts / "onnx-int8", "--input", rows, "--output", tmp_path / name
    )
    assert "lines of JSON or text" in line
    assert not (tmp_path / name).exists()
    with pytest.raises(UsageError, match="Name the file"):
        check_output(rows, tmp_path / name)
