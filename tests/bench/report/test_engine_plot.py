"""The bar chart of engine speeds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bench.report.engine_plot import read_panels, write_engine_plot

Report = dict[str, Any]


@pytest.fixture
def report() -> Report:
    """A report of one model, as far as the plot reads it: two engines and one that failed."""
    settings = {"input_tokens": 32, "new_tokens": 16, "target_ms": 100.0}
    rows: list[Report] = [
        {
            "engine": "llama.cpp",
            "quantization": "Q8_0",
            "bits": 8,
            "speed": {"p5": 60, "p50": 66.7, "p95": 75},
        },
        {
            "engine": "edge onnx",
            "quantization": "int8",
            "bits": 8,
            "speed": {"p5": 19, "p50": 19.9, "p95": 23},
        },
        {"engine": "OpenVINO", "quantization": "int8", "bits": 8, "speed": None},
    ]
    return {
        "model": "flan-t5-small",
        "random_weights": True,
        "settings": settings,
        "rows": rows,
        "rooflines": {"8": {"ms": 10.0}},
    }


def write(path: Path, *reports: Report) -> Path:
    path.write_text(json.dumps({"kind": "engines", "schema_version": 3, "reports": reports}))
    return path


def test_engines_are_sorted_by_their_median(report: Report, tmp_path: Path) -> None:
    [panel] = read_panels(write(tmp_path / "engines.json", report))
    assert [(bar.label, bar.is_edge, bar.p50) for bar in panel.bars] == [
        ("edge onnx int8", True, 19.9),
        ("llama.cpp Q8_0", False, 66.7),
    ]
    assert [bar.roofline for bar in panel.bars] == [10.0, 10.0]
    assert panel.target_ms == 100
    assert panel.subtitle == "32 tokens in, 16 out, random weights: speed only"


def test_the_same_report_gives_the_same_picture(report: Report, tmp_path: Path) -> None:
    other = copy.deepcopy(report) | {"model": "a <b>$model$\n"}
    source = write(tmp_path / "engines.json", report, other)
    first, second, png = (tmp_path / name for name in ("a.svg", "b.svg", "c.png"))
    for output in (first, second, png):
        write_engine_plot(source, output)
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text()
    assert "edge onnx int8" in text
    assert "19.9 (2.0 ×)" in text
    assert "a &lt;b&gt;$model$" in text
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_command(
    report: Report,
    tmp_path: Path,
    edge: Callable[..., Any],
    assert_refused: Callable[..., str],
) -> None:
    source = write(tmp_path / "engines.json", report)
    assert edge("report", source, "--plot", tmp_path / "engines.svg").status == 0
    assert (tmp_path / "engines.svg").is_file()
    assert "must end in" in assert_refused("report", source, "--plot", tmp_path / "engines.txt")
    both = ("--plot", tmp_path / "a.svg", "--markdown", tmp_path / "a.md")
    assert "can't be combined" in assert_refused("report", source, *both)
    source.write_text('{"results": []}')
    assert "bench-engines" in assert_refused("report", source, "--plot", tmp_path / "b.svg")
    write(source, {**report, "rows": report["rows"][2:]})
    assert "no engine was measured" in assert_refused(
        "report", source, "--plot", tmp_path / "c.svg"
    )
