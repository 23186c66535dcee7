"""Tables of the commands: nothing is cut, at any width of the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.cli.display.tables import parts

Edge = Callable[..., Any]

HEADERS = ("threads", "size, MB", "exact match", "p50 (quartiles), ms", "p95, ms", "≤ 100 ms")
VALUES = ("16", "1234.5", "98.0% (97–99)", "123.4 (110.0–133.3)", "178.9", "? not shown")
LABEL = "torchscript float32 ←"


def table() -> Table:
    drawn = Table(title="500 rows")
    drawn.add_column("artifact")
    for header in HEADERS:
        drawn.add_column(Text(header), justify="right")
    drawn.add_row(Text(LABEL), *map(Text, VALUES))
    return drawn


def printed(width: int, *important: str) -> list[str]:
    """The parts as a console of that width prints them."""
    console = Console(width=width, color_system=None)
    shown = []
    for part in parts(table(), console, important):
        with console.capture() as capture:
            console.print(part)
        shown.append(capture.get())
    return shown


@pytest.mark.parametrize("width", [48, 60, 80, 100, 160])
def test_every_value_is_whole_and_every_line_fits(width: int) -> None:
    shown = printed(width)
    text = "\n".join(shown)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for value in VALUES:
        assert value in text
    words = text.split()
    for header in HEADERS:
        assert all(word in words for word in header.split()), header
    assert all(LABEL.split()[0] in part for part in shown)
    assert text.count("500 rows") == 1


def test_a_wide_console_has_one_part_and_a_narrow_one_begins_with_the_important() -> None:
    assert len(printed(160)) == 1
    first, *others = printed(64, "p95", "≤")
    assert others
    assert "178.9" in first
    assert "? not shown" in first


def test_long_labels_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_tables.LABEL", "onnx-" * 30)
    shown = printed(60)
    assert "".join(shown).count("onnx-") >= 30
    assert max(len(line) for part in shown for line in part.splitlines()) <= 60


def test_a_report_fits_columns_and_is_in_one_piece_with_wide(
    edge: Edge, artifacts: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report = tmp_path / "report.json"
    ended = edge(
        *("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl", "-n", 5),
        *("--runs", 30, "--min-time", 0, "--target-ms", 60_000, "--json", report),
    )
    assert "…" not in ended.out
    tables = [line for line in ended.out.splitlines() if re.match(r"onnx int8 (←| )", line)]
    assert len(tables) > 2
    assert max(map(len, tables)) <= 80
    wide = edge("report", report, "--wide").out
    assert max(map(len, wide.splitlines())) > 120
    assert re.search(r"exact match.*p50 \(quartiles\), ms.*p95", wide)
    monkeypatch.delenv("COLUMNS")
    assert edge("report", report).out.split() == wide.split()  # off a terminal: 160 columns


def test_info_prints_hashes_whole(
    edge: Edge, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert re.search(r"sha256 [0-9a-f]{64}$", edge("info", artifacts / "onnx-int8").out, re.M)
