"""Rows of text → text in JSON-lines files: reading them with file and line in every complaint.

One reader serves training, the benchmark and `edge run --input`, so that a row means the same
everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.errors import DataError, UsageError

MAX_LINE_BYTES = 8 << 20  # a longer line is no row of text; refuse before it fills the memory
SPLITS = ("train", "dev", "test")
# Names that other tools give to the same split, tried in this order.
_SPLIT_FILES = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation", "val"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Columns:
    """Which column of a row holds what."""

    input: str = "input"
    target: str = "target"
    task: str = "task"


@dataclass(frozen=True)
class Row:
    """One example. `target` is None where the file has none and none was asked for."""

    input: str
    target: str | None
    task: str | None = None
    line: int = 0
    fields: Mapping[str, object] = field(default_factory=dict)  # every column as read


def split_file(data: str | Path, split: str) -> Path | None:
    """The file of `split` in a data folder, or None where the folder has none."""
    for name in _SPLIT_FILES[split]:
        path = Path(data) / f"{name}.jsonl"
        if path.is_file():
            return path
    return None


def dev_file(data: str | Path) -> Path:
    """The file of rows to measure with: `data` itself, or a folder's dev split.

    Where a folder has none, the path is what it would be called: reading it says what is missing.
    """
    path = Path(data)
    return (split_file(path, "dev") or path / "dev.jsonl") if path.is_dir() else path


def read_rows(
    path: str | Path, columns: Columns = Columns(), *, need_target: bool = True
) -> list[Row]:
    """Every row of a JSON-lines file; blank lines are passed over.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a row is malformed (file:line).
    """
    rows = list(iter_rows(path, columns, need_target=need_target))
    if not rows:
        raise DataError("the file has no rows", path=path)
    return rows


def iter_rows(
    path: str | Path, columns: Columns = Columns(), *, need_target: bool = True
) -> Iterator[Row]:
    """Like `read_rows`, one row at a time and in constant memory."""
    for number, raw in _raw_lines(Path(path)):
        yield parse_row(raw, columns, path=path, line=number, need_target=need_target)


@dataclass(frozen=True)
class BadRow:
    """A line that is no row: what it holds (its columns, where it is a JSON object) and why not."""

    values: Mapping[str, object]
    error: DataError


def iter_rows_with_errors(path: str | Path, columns: Columns = Columns()) -> Iterator[Row | BadRow]:
    """Like `iter_rows` without targets, but a malformed row is an item, not the end.

    Raises:
        DataError: the file can't be read, or a line is too long to be looked at.
    """
    for number, raw in _raw_lines(Path(path)):
        try:
            yield parse_row(raw, columns, path=path, line=number, need_target=False)
        except DataError as error:
            yield BadRow(_columns_of(raw), error)


def _columns_of(raw: bytes) -> Mapping[str, object]:
    text = raw.decode("utf-8", errors="replace")
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        values = None
    return values if isinstance(values, dict) else {"raw": text.rstrip("\r\n")}


def iter_lines(path: str | Path) -> Iterator[str]:
    """The lines of a text file that are not blank, without their ends.

    Raises:
        DataError: the file is missing, or a line is not UTF-8 or too long.
    """
    for number, raw in _raw_lines(Path(path)):
        yield _decode(raw, path, number).rstrip("\r\n")


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of each line that is not blank."""
    if path.is_dir():
        raise DataError("is a folder; name the file to read", path=path)
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from error
    with handle:
        number = 0
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(
                    f"the line is longer than {MAX_LINE_BYTES >> 20} MiB", path=path, line=number
                )
            if raw.strip():
                yield number, raw


def _decode(raw: bytes, path: str | Path, line: int) -> str:
    try:
        # Some editors put a byte order mark in front of the first line.
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte {error.start} of the line)", path=path, line=line
        ) from None


def parse_row(
    raw: bytes, columns: Columns, *, path: str | Path, line: int, need_target: bool = True
) -> Row:
    """One line of JSON as a row.

    Raises:
        DataError: no UTF-8, no JSON object, a column missing, or a value that is no text.
    """
    text_line = _decode(raw, path, line)
    try:
        values = json.loads(text_line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        column = getattr(error, "colno", 1)
        raise DataError(f"not JSON: {reason} (column {column})", path=path, line=line) from None
    if not isinstance(values, dict):
        raise DataError(
            f'a row must be a JSON object like {{"{columns.input}": …}},'
            f" not {type(values).__name__}",
            path=path,
            line=line,
        )

    def text(name: str, option: str) -> str:
        if name not in values:
            raise DataError(
                f"no column {name!r}; this row has: {', '.join(map(repr, values)) or 'none'}"
                f" (choose with {option})",
                path=path,
                line=line,
            )
        value = values[name]
        if not isinstance(value, str):
            raise DataError(
                f"column {name!r} must be text, not {type(value).__name__}", path=path, line=line
            )
        if not value.strip():
            raise DataError(f"column {name!r} is empty", path=path, line=line)
        return value

    source = text(columns.input, "--input-column")
    target = text(columns.target, "--target-column") if need_target else None
    task = values.get(columns.task)
    if task is not None and not isinstance(task, str):
        raise DataError(f"column {columns.task!r} must be text", path=path, line=line)
    return Row(source, target, task, line, values)


_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Prompt:
    """How an input becomes what the model reads: `[{task}] {input}`, say.

    Only `{name}` is replaced, by that column's text; there are no expressions, so a template from
    a stranger's folder can do nothing else. A template without `{input}` is put before it.
    """

    template: str = "{input}"

    @classmethod
    def parse(cls, prefix: str | None) -> Prompt:
        if not prefix:
            return cls()
        return cls(prefix if "{input}" in prefix else prefix + "{input}")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in braces other than `input`, in order."""
        return tuple(dict.fromkeys(n for n in _FIELD.findall(self.template) if n != "input"))

    def apply(self, text: str, fields: Mapping[str, object] | None = None) -> str:
        """The template with its fields filled in.

        Raises:
            UsageError: a field of the template was not given.
        """
        if self.template == "{input}":
            return text
        fields = fields or {}
        missing = [name for name in self.fields if not isinstance(fields.get(name), str)]
        if missing:
            raise UsageError(
                f"the prompt {self.template!r} needs the field {missing[0]!r}"
                f" (give it with --field {missing[0]}=…, or as a column of the row)"
            )
        values = {**fields, "input": text}
        return _FIELD.sub(lambda match: str(values[match.group(1)]), self.template)
