"""A run against an earlier one: ratios, what can't be compared, and a gate that catches a delay."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bench.artifacts.compare import compare
from edge.bench.report.document import read_document
from edge.runtime.errors import DataError

_SIZES = ("--min-time", 0, "--limit", 10, "--target-ms", 60_000)


def _arguments(artifacts: Path, dataset: Path) -> tuple[object, ...]:
    return ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl", *_SIZES)


@pytest.fixture(scope="module")
def old(artifacts: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an earlier run."""
    from edge.bench.artifacts.runner import run_bench
    from edge.runtime.rows import read_rows

    path = tmp_path_factory.mktemp("old") / "old.json"
    data = dataset / "dev.jsonl"
    report = run_bench([artifacts / "onnx-int8"], read_rows(data)[:10], data=data)
    path.write_text(json.dumps(report.as_json()))
    return path


def test_a_delay_is_caught(
    edge: Callable[..., Any],
    artifacts: Path,
    dataset: Path,
    old: Path,
    tmp_path: Path,
    slow_onnx: Callable[[float], None],
) -> None:
    """A real engine that sleeps before each answer, against itself as it was."""
    slow_onnx(0.03)
    report = tmp_path / "new.json"
    arguments = (*_arguments(artifacts, dataset), "--compare", old, "--runs", 90)
    measured = edge(*arguments, "--json", report)
    assert measured.status == 0, measured.err
    assert "ratio" in measured.out
    ended = edge("compare", old, report, "--fail-slower", 1.2)
    assert ended.status == 1
    assert "slower than 1.2 times the old run: onnx-int8 (" in ended.err
    assert "times the p50" in ended.err
    assert json.loads(report.read_text())["results"][0]["verdict"] == "meets"
    assert "ratio" in ended.out


def test_the_same_again_passes(
    edge: Callable[..., Any], artifacts: Path, dataset: Path, old: Path, tmp_path: Path
) -> None:
    report = tmp_path / "new.json"
    measured = edge(*_arguments(artifacts, dataset), "--json", report)
    assert measured.status == 0, measured.err
    # The gate, not the machine, is tested.
    ended = edge("compare", old, report, "--fail-slower", 100)
    assert ended.status == 0, ended.err
    assert "onnx-int8" in ended.out
    assert "another machine" not in ended.out


def _two(old: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    values = read_document(old)
    return values, copy.deepcopy(values)


def test_ratios_are_new_over_old(old: Path) -> None:
    before, after = _two(old)
    after["results"][0]["latency"]["p50"] *= 1.5
    after["results"][0]["latency"]["p95"] *= 0.5
    comparison = compare(before, after)
    [change] = comparison.changes
    assert change.p50_ratio == pytest.approx(1.5)
    assert change.p95_ratio == pytest.approx(0.5)
    assert comparison.regressions(1.4) == [change]
    assert comparison.regressions(1.6) == []
    assert comparison.unpaired == comparison.differences == []


def test_lines_are_paired_by_name_format_and_how_they_were_asked(old: Path) -> None:
    before, after = _two(old)
    [line] = before["results"]
    before["results"] = [{**line, "artifact": "a/x"}, {**line, "artifact": "a/x", "batch": 8}]
    after["results"] = [{**line, "artifact": "b/x"}, {**line, "artifact": "b/y"}]
    comparison = compare(before, after)
    assert [change.name for change in comparison.changes] == ["x"]
    assert comparison.unpaired == [
        "y (only in this run)",
        "x batch 8, concurrency 1 (only in the old run)",
    ]
    # Two of one name: their paths tell them apart.
    after["results"] = [{**line, "artifact": "a/x"}, {**line, "artifact": "b/x"}]
    comparison = compare(before, after)
    assert [change.name for change in comparison.changes] == ["a/x"]


def test_what_is_not_measured_any_more_is_a_regression(old: Path) -> None:
    before, after = _two(old)
    after["results"][0] |= {"latency": None, "error": "crashed (SIGABRT)"}
    comparison = compare(before, after)
    [change] = comparison.regressions(10)
    assert change.error == "crashed (SIGABRT)"


def test_the_gate_fails_if_an_artifact_is_missing_or_other_rows_were_asked(
    assert_refused: Callable[..., str], old: Path, tmp_path: Path
) -> None:
    before, after = _two(old)
    [line] = before["results"]
    before["results"] = [line, {**line, "artifact": "gone"}]
    paths = tmp_path / "before.json", tmp_path / "after.json"
    for path, values in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(values))
    line = assert_refused("compare", *paths, "--fail-slower", 9, status=1)
    assert "not measured again: gone (only in the old run)" in line
    for group, name, value in (
        ("data", "sha256", "0" * 64),
        ("data", "rows", 3),
        ("settings", "new_tokens", 16),
    ):
        other = copy.deepcopy(before)
        other[group][name] = value
        paths[1].write_text(json.dumps(other))
        line = assert_refused("compare", *paths, "--fail-slower", 9)
        assert "Compare runs with the same --data" in line


def test_other_conditions_are_said(
    edge: Callable[..., Any], artifacts: Path, dataset: Path, old: Path, tmp_path: Path
) -> None:
    before, after = _two(old)
    after["machine"]["cpu"] = "Another 9000"
    after["data"]["rows"] = 11
    after["settings"]["new_tokens"] = 16
    after["results"][0]["threads"] = 7
    comparison = compare(before, after)
    assert comparison.other_machine is not None
    assert "Another 9000 now" in comparison.other_machine
    assert len(comparison.differences) == 3
    path = tmp_path / "other.json"
    path.write_text(json.dumps(after))
    arguments = (*_arguments(artifacts, dataset), "--compare", path)
    shown = edge(*arguments)
    assert shown.status == 0, shown.err
    assert "another machine" in shown.out
    refused = edge("compare", path, old, "--fail-slower", 1.2)
    assert refused.status == 2
    assert "compare runs of one machine" in refused.err


def test_a_gate_that_compares_nothing_fails(
    edge: Callable[..., Any], old: Path, tmp_path: Path
) -> None:
    before, _ = _two(old)
    before["results"][0]["artifact"] = "another"
    path = tmp_path / "old.json"
    path.write_text(json.dumps(before))
    ended = edge("compare", path, old, "--fail-slower", 1.2)
    assert ended.status == 1
    assert "nothing was compared" in ended.err
    assert "Not compared: another (only in the old run)." in ended.out


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 3, "results": [1]}']
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(DataError, match="old.json"):
        read_document(path)
    with pytest.raises(DataError, match="can't be read"):
        read_document(tmp_path / "none.json")
