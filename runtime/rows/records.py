"""Records of any kind of data: the columns of each row, or what is wrong with it."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edge.runtime.errors import DataError, library_errors
from edge.runtime.hub.data_sets import data_set_access
from edge.runtime.platform.json_file import parse_json
from edge.runtime.registry import missing_extra
from edge.runtime.rows.class_labels import labels_of_features, with_names
from edge.runtime.rows.json_array import iter_array
from edge.runtime.rows.kinds import KNOWN_KINDS, HubDataset, kind_of
from edge.runtime.rows.lines import MAX_LINE_BYTES, decode, open_data, raw_lines
from edge.runtime.rows.parquet import open_parquet

_PEEKED = 1024
_SEPARATORS = ",;\t|"  # of a .csv file, the first one where several fit
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?\r?\n')
# What to say of a first line that is not JSON, by kind.
_HINTS = {
    None: f"the suffix says how a file is read: {KNOWN_KINDS}",
    "json": "a .json file is an array of rows, or has a row in each line",
}


@dataclass(frozen=True)
class Record:
    """One row before its columns are checked.

    Attributes:
        line: Line of the file, or row of a table, from 1.
        values: The columns; {"raw": line} if it can't be read.
        error: What is wrong with the row, or None.
    """

    line: int
    values: Mapping[str, object]
    error: DataError | None = None


def iter_records(path: str | Path) -> Iterator[Record]:
    """All records of DATA, one at a time.

    Raises:
        DataError: The data can't be read further, as when a file is missing or damaged.
        MissingExtraError: The kind's library is not installed.
    """
    kind = kind_of(path)
    if kind == "parquet":
        yield from _parquet(Path(path))
    elif kind in ("saved", "hub"):
        yield from _datasets(path, kind)
    else:
        with open_data(path) as handle:
            if kind in ("csv", "tsv"):
                yield from _table(handle, path, "\t" if kind == "tsv" else None)
            elif kind == "json" and _first_byte(handle) == b"[":
                for line, values in iter_array(handle, path):
                    yield _record(line, values, path)
            else:
                yield from _json_lines(handle, path, kind)


def _first_byte(handle: BinaryIO) -> bytes:
    start: bytes = handle.peek(_PEEKED)[:_PEEKED]  # type: ignore[attr-defined]
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _json_lines(handle: BinaryIO, path: str | Path, kind: str | None) -> Iterator[Record]:
    for line, raw in raw_lines(handle, path):
        shown = {"raw": raw.decode("utf-8", errors="replace").rstrip("\r\n")}
        try:
            record = _record(line, _parse(raw, path, line), path, shown)
        except DataError as error:
            record = Record(line, shown, error)
        if record.error is not None and line == 1 and (hint := _hint(kind, raw)):
            message = str(record.error).removeprefix(f"{path}:1: ")
            hinted = DataError(f"{message} ({hint})", path=path, line=1)
            record = Record(line, shown, hinted)
        yield record


def _hint(kind: str | None, raw: bytes) -> str | None:
    """What to say of a first line that is not a row."""
    if kind != "jsonl":
        return _HINTS.get(kind)
    start = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if start.startswith(b"["):
        return "an array of rows is read from a file named .json; rename it"
    if start == b"{":
        return "each row must be on a line of its own; jq -c . IN > OUT writes them so"
    return None


def _parse(raw: bytes, path: str | Path, line: int) -> object:
    text = decode(raw, path, line)
    try:
        values = parse_json(text, unique_names=True)
    except ValueError as error:
        raise DataError(
            str(error).replace("line 1 column", "column"), path=path, line=line
        ) from None
    return values


def _record(
    line: int, values: object, path: str | Path, shown: Mapping[str, object] | None = None
) -> Record:
    """The record of one JSON value."""
    if isinstance(values, dict):
        return Record(line, values)
    problem = f'a row must be a JSON object like {{"input": …}}, not {type(values).__name__}'
    return Record(line, shown or {}, DataError(problem, path=path, line=line))


def _table(handle: BinaryIO, path: str | Path, delimiter: str | None) -> Iterator[Record]:
    """CSV or TSV with a header. A .csv file may be separated as spreadsheets and others write it.

    The separator of a .csv file is the one of , ; tab | that its header has most of, or that of a
    first line "sep=;", by which Excel is told.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = (decode(raw, path, line) for line, raw in raw_lines(handle, path, blank=True))
    first = next(lines, "")
    lines_before = 0
    if delimiter is None:
        if found := _SEPARATOR_LINE.fullmatch(first):
            first, delimiter, lines_before = next(lines, ""), found[1], 1
        else:
            delimiter = max(_SEPARATORS, key=first.count)
    if "\n" not in first and "\r" in first.rstrip("\r"):
        raise DataError(
            "the lines end with CR alone, as on old Macs. Convert it: tr '\\r' '\\n' < IN > OUT",
            path=path,
        )
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = lines_before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"malformed table ({error})", path=path, line=line) from None
        if cells is None:
            return
        if not header:
            header = [name.strip() for name in cells]
            if not any(header):
                raise DataError("the header names no columns", path=path, line=line)
            if len({*header}) < len(header):
                raise DataError("two columns have the same name", path=path, line=line)
            continue
        if not cells:
            continue
        values = dict(zip(header, cells, strict=False))
        if len(cells) == len(header):
            yield Record(line, values)
        else:
            problem = f"{len(cells)} values, but the header has {len(header)} columns"
            yield Record(line, values, DataError(problem, path=path, line=line))


def _parquet(path: Path) -> Iterator[Record]:
    number = 0
    with open_parquet(path) as file:
        for _, rows in file.tables():
            for values in rows:
                number += 1
                yield Record(number, values)


def _datasets(data: str | Path, kind: str) -> Iterator[Record]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_extra(f"{data}", "datasets", "train") from error
    rows: Any
    if kind == "saved":
        with library_errors(DataError, str(data), "the data set can't be loaded"):
            rows = datasets.load_from_disk(str(data))
    else:
        hub = HubDataset.parse(data)
        with data_set_access(hub.name, str(data)):
            rows = datasets.load_dataset(hub.name, hub.config, split=hub.split or "train")
    labels = labels_of_features(rows.features)
    with library_errors(DataError, str(data), "a row can't be read"):
        for number, values in enumerate(rows, start=1):
            yield Record(number, with_names(values, labels, data, number))
