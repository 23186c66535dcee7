"""Rows with an input and a target, from the records of any kind of data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.errors import DataError
from edge.runtime.platform.json_file import is_unicode
from edge.runtime.rows.columns import DEFAULT, Columns, guess_columns, note
from edge.runtime.rows.records import Record, iter_records


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        input: The input text.
        target: The target text, or None if none was requested.
        task: The task, or None if the row has none.
        line: Line of the file, or row of a table, from 1.
        fields: All columns of the row.
        columns: The names of the columns that the texts came from.
    """

    input: str
    target: str | None
    task: str | None = None
    line: int = 0
    fields: Mapping[str, object] = field(default_factory=dict)
    columns: Columns = DEFAULT


@dataclass(frozen=True)
class BadRow:
    """A malformed row: its columns ({"raw": line} if it can't be read) and its error."""

    values: Mapping[str, object]
    error: DataError


def read_rows(
    path: str | Path, columns: Columns = DEFAULT, *, need_target: bool = True
) -> list[Row]:
    """All rows of DATA (see `edge.runtime.rows.kinds`); blank lines are skipped.

    Args:
        path: The data.
        columns: Column names; see `guess_columns` for what happens to missing ones.
        need_target: Whether every row must have a target.

    Raises:
        DataError: The data is missing, empty or damaged, or a row is malformed.
        MissingExtraError: The library that reads this kind is not installed.
    """
    rows = list(iter_rows(path, columns, need_target=need_target))
    if not rows:
        raise DataError("the file has no rows", path=path)
    return rows


def iter_rows(
    path: str | Path, columns: Columns = DEFAULT, *, need_target: bool = True
) -> Iterator[Row]:
    """Like `read_rows`, one row at a time in constant memory; empty data has no rows."""
    for row in _iter(path, columns, need_target=need_target):
        if isinstance(row, BadRow):
            raise row.error
        yield row


def iter_rows_with_errors(path: str | Path, columns: Columns = DEFAULT) -> Iterator[Row | BadRow]:
    """Like `iter_rows` without targets, but yields malformed rows instead of raising.

    Raises:
        DataError: The data can't be read further.
    """
    return _iter(path, columns, need_target=False)


def _iter(path: str | Path, columns: Columns, *, need_target: bool) -> Iterator[Row | BadRow]:
    guessed = False
    for record in iter_records(path):
        if record.error is not None:
            yield BadRow(record.values, record.error)
            continue
        if not guessed:
            names = [*record.values]
            columns = guess_columns(columns, names, need_target=need_target, path=path)
            guessed = True
        try:
            yield _row(record, columns, path, need_target=need_target)
        except DataError as error:
            yield BadRow(record.values, error)


def _row(record: Record, columns: Columns, path: str | Path, *, need_target: bool) -> Row:
    """Check the columns of one record.

    Raises:
        DataError: A missing column, a value that is not text, or text that is not valid Unicode.
    """
    values, line = record.values, record.line

    def text(name: str, option: str, *, numbers: bool = False) -> str:
        if name not in values:
            raise DataError(
                f"no column {name!r}; this row has: {', '.join(map(repr, values)) or 'none'}"
                f" (choose one with {option})",
                path=path,
                line=line,
            )
        value = values[name]
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            problem = f"column {name!r} is {'null' if value is None else value}"
            raise DataError(problem, path=path, line=line)
        if numbers and type(value) in (int, float):
            note(f"{path}: column {name!r} holds numbers, which are read as text")
            value = json.dumps(value)
        if not isinstance(value, str):
            raise DataError(
                f"column {name!r} must be text, not {type(value).__name__}", path=path, line=line
            )
        if not value.strip():
            raise DataError(f"column {name!r} is empty", path=path, line=line)
        return value

    source = text(columns.input, "--input-column")
    target = text(columns.target, "--target-column", numbers=True) if need_target else None
    task = values.get(columns.task)
    if task == "":  # an empty cell of a table
        task = None
    if task is not None and not isinstance(task, str):
        raise DataError(f"column {columns.task!r} must be text", path=path, line=line)
    texts = [value for value in values.values() if isinstance(value, str)]
    if not is_unicode([*values, *texts]):
        raise DataError("not valid Unicode (half of a surrogate pair)", path=path, line=line)
    return Row(source, target, task, line, values, columns)
