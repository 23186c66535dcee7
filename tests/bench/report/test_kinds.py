"""`edge report` on the reports of `edge bench-engines` and `edge bench-speculation`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bench.engines.matrix_rate import MatrixRate
from edge.bench.engines.results import EngineReport, EngineRow, Settings, Speed, engines_document
from edge.bench.engines.roofline import Roofline
from edge.bench.speculation.results import Gain, SpeculationReport, speculation_document

MACHINE = {"cpu": "A CPU", "cores": 2}
CREATED = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    speed = Speed(1, 20.0, 30.0, 4.0, 5.0, 6.0, 2.0, 0.2, 10_000, 20_000, (5.0,) * 100)
    rows = [
        EngineRow("onnx-int8", "edge onnx", "int8", 8, False, 1000, speed),
        EngineRow("other", "other engine", "int8", 8, True, failure="not installed: other"),
    ]
    report = EngineReport(
        model="flan-t5-small",
        random_weights=True,
        settings=Settings(),
        rows=rows,
        bandwidth=1e10,
        matrix_rate=MatrixRate("a product", 2e11, {"a product": 2e11}),
        rooflines={8: Roofline(8, 1, 1000, 10, 10, 1.0, 0.1, 2.0, 500.0)},
        scaling=[],
        machine=MACHINE,
        created=CREATED,
    )
    path = tmp_path / "engines.json"
    path.write_text(json.dumps(engines_document([report])))
    return path


@pytest.fixture
def speculation(tmp_path: Path) -> Path:
    gains = [Gain("this artifact, its data", 30, 2.5, 10.0, 5.0, 2.0, 1.5, 2.5)]
    report = SpeculationReport("my-artifact", 6, 1, 60, 60, 2.5, gains, MACHINE, CREATED)
    path = tmp_path / "speculation.json"
    path.write_text(json.dumps(speculation_document([report])))
    return path


def test_engines_are_shown(edge: Callable[..., Any], engines: Path) -> None:
    ended = edge("report", engines)
    assert ended.status == 0, ended.err
    for word in ("flan-t5-small", "edge onnx", "not installed: other", "✓ meets", "A CPU"):
        assert word in ended.out


def test_speculation_is_shown(edge: Callable[..., Any], speculation: Path) -> None:
    ended = edge("report", speculation)
    assert ended.status == 0, ended.err
    for word in ("my-artifact", "this artifact, its data", "2.00 (1.50–2.50)"):
        assert word in ended.out


def test_other_kinds_have_no_pages(
    assert_refused: Callable[..., str], engines: Path, tmp_path: Path
) -> None:
    assert "leave out --markdown" in assert_refused("report", engines, "--html", tmp_path / "x")
    values = json.loads(engines.read_text())
    engines.write_text(json.dumps(values | {"kind": "else"}))
    assert "its kind is 'else'" in assert_refused("report", engines)


def test_a_comparison_needs_reports_of_artifacts(
    assert_refused: Callable[..., str], engines: Path, artifacts: Path, dataset: Path
) -> None:
    arguments = ("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl")
    line = assert_refused(*arguments, "--compare", engines)
    assert 'a report of kind "engines" can\'t be used here' in line
