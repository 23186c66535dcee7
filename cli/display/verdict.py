"""Verdicts in the tables of the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_SHOWN = {
    "meets": ("✓ meets", "green"),
    "misses": ("✗ misses", "red"),
    "not shown": ("? not shown", "yellow"),
}


def verdict_text(word: str) -> Text:
    """The verdict with a mark and a color."""
    from rich.text import Text

    return Text(*_SHOWN[word])
