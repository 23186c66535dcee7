"""Tables that fit the terminal: columns that have no room follow in a table below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from edge.cli.base import Invocation
from edge.cli.display.console import stdout_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

_UNLIMITED = 10_000
_MAX_LABEL = 0.5  # of the width for the first column, if the table does not fit


def print_table(table: Table, *, important: Sequence[str] = ()) -> None:
    """Print a table to standard output, in several parts if it is wider than that.

    Each part starts with the first column. With `--wide` there is one part, however wide.

    Args:
        table: A table of texts.
        important: Beginnings of the headers that should be in the first part.
    """
    console = stdout_console()
    context = click.get_current_context(silent=True)
    invocation = context.find_object(Invocation) if context else None
    if invocation is not None and invocation.wide:
        console.width = max(console.width, _width(table, console))
    for index, part in enumerate(parts(table, console, important)):
        if index:
            console.print()
        console.print(part)


def parts(table: Table, console: Console, important: Sequence[str] = ()) -> Iterator[Table]:
    """The table itself if it fits the console, else tables of some of its columns that do."""
    if _width(table, console) <= console.width:
        yield table
        return
    first, *others = table.columns
    waiting = sorted(others, key=lambda column: _rank(column, important))
    title = table.title
    while waiting:
        chosen: list[Column] = []
        for column in list(waiting):
            part = _part(table, [first, *_in_order(others, [*chosen, column])], console.width)
            if chosen and _width(part, console) > console.width:
                continue
            chosen.append(column)
            waiting.remove(column)
        part = _part(table, [first, *_in_order(others, chosen)], console.width)
        part.title, title = title, None
        yield part


def _width(table: Table, console: Console) -> int:
    """Width of the table with every text on one line."""
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum


def _in_order(columns: Sequence[Column], chosen: Sequence[Column]) -> list[Column]:
    return [column for column in columns if any(column is one for one in chosen)]


def _rank(column: Column, important: Sequence[str]) -> int:
    """Position in `important`, or behind all of it."""
    starts = [str(column.header).startswith(name) for name in important]
    return starts.index(True) if True in starts else len(starts)


def _broken(header: str) -> Text:
    """The header on two lines, if it has a unit or details behind its name."""
    from rich.text import Text

    return Text(header.replace(" (", "\n(", 1))


def _part(table: Table, columns: Sequence[Column], width: int) -> Table:
    """A table of some columns. Long texts are folded, numbers are on one line."""
    from rich import box
    from rich.table import Table

    part = Table(
        title_justify=table.title_justify,
        show_header=table.show_header,
        show_edge=False,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        part.add_column(
            _broken(str(column.header)),
            justify=column.justify,
            overflow="fold",
            no_wrap=column.justify == "right",
            max_width=max(8, int(width * _MAX_LABEL)) if index == 0 else None,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        part.add_row(*cells)
    return part
