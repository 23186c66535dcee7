"""Marks and colors of the verdicts, the same in every table."""

from __future__ import annotations

MARKS = {
    "meets": "✓ meets",
    "misses": "✗ misses",
    "not shown": "? not shown",
    "failed": "✗ failed",
}
COLORS = {"meets": "green", "misses": "red", "not shown": "yellow", "failed": "red"}
