"""Tables of a report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.bench.report.marks import COLORS
from edge.bench.report.results import Document
from edge.bench.report.tables import tables

if TYPE_CHECKING:
    from rich.table import Table


def terminal_tables(document: Document) -> list[Table]:
    """The tables for rich, the winner in bold with an arrow; names are never read as markup."""
    from rich.table import Table
    from rich.text import Text

    shown = []
    for table in tables(document):
        drawn = Table(title=Text(table.title))
        for index, column in enumerate(table.columns):
            drawn.add_column(Text(column), justify="left" if index < table.left else "right")
        for line in table.lines:
            style = "bold" if line.winner else ""
            *cells, last = (Text(cell, style) for cell in line.cells)
            if line.winner:
                cells[0].append(" ←")
            last.stylize(COLORS.get(line.verdict, ""))
            drawn.add_row(*cells, last)
        shown.append(drawn)
    return shown
