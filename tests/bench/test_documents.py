"""Benchmark documents: what is refused when one is read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge.bench import documents
from edge.bench.documents import kind_of, read_json
from edge.bench.speculation.results import (
    Gain,
    SpeculationReport,
    speculation_document,
    speculation_reports,
)
from edge.runtime.errors import DataError

REPORT = SpeculationReport(
    "artifact", 6, 1, 10, 10, 3.0, [Gain("data", 30, 3.0, 9.0, 3.0, 3.0, 2.0, 4.0)], {}, "now"
)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "no JSON object"),
    ],
)
def test_files_that_are_no_documents(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"report.json: .*{complaint}") as refused:
        read_json(path)
    assert "\n" not in str(refused.value)


def test_large_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_json(tmp_path / "none.json")
    path = tmp_path / "report.json"
    path.write_text('{"kind": "artifacts"}')
    assert kind_of(read_json(path)) == "artifacts"
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="larger than"):
        read_json(path)


def test_a_pipe_without_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not JSON"):
        read_json(pipe)


@pytest.mark.parametrize("kind", [None, "other", {"a": 1}, "x" * 1000])
def test_unknown_kinds(kind: Any) -> None:
    with pytest.raises(DataError, match="its kind is") as refused:
        kind_of({"kind": kind}, "report.json")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "engines"}, 'kind "speculation" with schema_version'),
        ({"schema_version": 1}, "run the benchmark again"),
        ({"reports": None}, "at reports"),
        ({"reports": [{}]}, r"at 0\.artifact"),
        ({"reports": [REPORT.as_json() | {"rows": "many"}]}, r"at 0\.rows"),
        ({"reports": [REPORT.as_json() | {"gains": [1]}]}, r"at 0\.gains\.0"),
    ],
)
def test_damaged_documents(changes: dict[str, Any], complaint: str) -> None:
    document = speculation_document([REPORT])
    assert speculation_reports(document) == [REPORT]
    with pytest.raises(DataError, match=complaint) as refused:
        speculation_reports(document | changes, "report.json")
    assert str(refused.value).startswith("report.json: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_report_has_no_numbers_that_json_has_not(number: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(f'{{"kind": "artifacts", "target_ms": {number}}}')
    with pytest.raises(DataError, match="NaN or an infinite number"):
        read_json(path)
