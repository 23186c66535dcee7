"""Rows of JSON-lines files and the prompt around them; every error names file and line.

Training, the benchmark and `edge run --input` share this reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.errors import DataError, UsageError
from edge.runtime.platform.json_file import parse_json

MAX_LINE_BYTES = 8 << 20  # longer lines are rejected before they fill the memory
SPLITS = ("train", "dev", "test")
# File names of each split, tried in this order.
_SPLIT_FILES = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation", "val"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Columns:
    """Column names of a row's input, target and task."""

    input: str = "input"
    target: str = "target"
    task: str = "task"


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        input: The input text.
        target: The target text, or None if none was requested.
        task: The task, or None if the row has none.
        line: Line of the file, from 1.
        fields: All columns of the row.
    """

    input: str
    target: str | None
    task: str | None = None
    line: int = 0
    fields: Mapping[str, object] = field(default_factory=dict)


def split_file(data: str | Path, split: str) -> Path | None:
    """The file of `split` ("train", "dev" or "test") in a data folder, or None if it has none."""
    for name in _SPLIT_FILES[split]:
        path = Path(data) / f"{name}.jsonl"
        if path.is_file():
            return path
    return None


def dev_file(data: str | Path) -> Path:
    """The file of rows to evaluate on: `data` itself, or the dev split of a folder.

    For a folder without a dev split, the path of a file that does not exist.
    """
    path = Path(data)
    return (split_file(path, "dev") or path / "dev.jsonl") if path.is_dir() else path


def read_rows(
    path: str | Path, columns: Columns = Columns(), *, need_target: bool = True
) -> list[Row]:
    """All rows of a JSON-lines file; blank lines are skipped.

    Args:
        path: The file.
        columns: Column names.
        need_target: Whether every row must have a target.

    Raises:
        DataError: The file is missing, empty or not UTF-8, or a row is malformed.
    """
    rows = list(iter_rows(path, columns, need_target=need_target))
    if not rows:
        raise DataError("the file has no rows", path=path)
    return rows


def iter_rows(
    path: str | Path, columns: Columns = Columns(), *, need_target: bool = True
) -> Iterator[Row]:
    """Like `read_rows`, one row at a time in constant memory; an empty file has no rows."""
    for number, raw in _raw_lines(Path(path)):
        yield parse_row(raw, columns, path=path, line=number, need_target=need_target)


@dataclass(frozen=True)
class BadRow:
    """A malformed line: its columns ({"raw": line} if it is not a JSON object) and its error."""

    values: Mapping[str, object]
    error: DataError


def iter_rows_with_errors(path: str | Path, columns: Columns = Columns()) -> Iterator[Row | BadRow]:
    """Like `iter_rows` without targets, but yields malformed rows instead of raising.

    Raises:
        DataError: The file can't be read, or a line is longer than MAX_LINE_BYTES.
    """
    for number, raw in _raw_lines(Path(path)):
        try:
            yield parse_row(raw, columns, path=path, line=number, need_target=False)
        except DataError as error:
            yield BadRow(_columns_of(raw), error)


def _columns_of(raw: bytes) -> Mapping[str, object]:
    text = raw.decode("utf-8", errors="replace")
    try:
        values = parse_json(text)
    except ValueError:
        values = None
    return values if isinstance(values, dict) else {"raw": text.rstrip("\r\n")}


def iter_lines(path: str | Path) -> Iterator[str]:
    """The lines of a text file without their line ends; blank lines are skipped.

    Raises:
        DataError: The file is missing, or a line is not UTF-8 or too long.
    """
    for number, raw in _raw_lines(Path(path)):
        yield _decode(raw, path, number).rstrip("\r\n")


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each line that is not blank."""
    if path.is_dir():
        raise DataError("is a folder; give a file", path=path)
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
        # utf-8-sig: some editors write a byte order mark.
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte {error.start} of the line)", path=path, line=line
        ) from None


def parse_row(
    raw: bytes, columns: Columns, *, path: str | Path, line: int, need_target: bool = True
) -> Row:
    """Parse one line of JSON into a row.

    Args:
        raw: The line.
        columns: Column names.
        path: The file, for errors.
        line: The line number, for errors.
        need_target: Whether the row must have a target.

    Raises:
        DataError: Not UTF-8, not a JSON object, a missing column, or a value that is not text.
    """
    text_line = _decode(raw, path, line)
    try:
        values = parse_json(text_line)
    except ValueError as error:
        raise DataError(
            str(error).replace("line 1 column", "column"), path=path, line=line
        ) from None
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
                f" (choose one with {option})",
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
    """The template around each input, such as `[{task}] {input}`.

    `{name}` is replaced by the value of that field. There are no expressions, so that templates
    from untrusted folders are safe.
    """

    template: str = "{input}"

    @classmethod
    def parse(cls, prefix: str | None) -> Prompt:
        """The prompt of a `--prefix`: a template, or a text to put before the input."""
        if not prefix:
            return cls()
        return cls(prefix if "{input}" in prefix else prefix + "{input}")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields other than `input`, in order of appearance."""
        return tuple(dict.fromkeys(n for n in _FIELD.findall(self.template) if n != "input"))

    def apply(self, text: str, fields: Mapping[str, object] | None = None) -> str:
        """Fill the template.

        Args:
            text: Replaces `{input}`.
            fields: Values of the other fields; further entries are ignored.

        Raises:
            UsageError: A field is missing or not a string.
        """
        if self.template == "{input}":
            return text
        fields = fields or {}
        missing = [name for name in self.fields if not isinstance(fields.get(name), str)]
        if missing:
            raise UsageError(
                f"the prompt {self.template!r} needs the field {missing[0]!r}"
                f" (set it with --field {missing[0]}=… or as a column of the row)"
            )
        values = {**fields, "input": text}
        return _FIELD.sub(lambda match: str(values[match.group(1)]), self.template)
