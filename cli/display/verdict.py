"""Verdicts in the tables of the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def verdict_text(word: str) -> Text:
    """The verdict with a mark and a color."""
    from rich.text import Text

    from edge.bench.report.marks import COLORS, MARKS

    return Text(MARKS[word], COLORS[word])
