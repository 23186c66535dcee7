"""Rows that vocabulary shortlists are made from: the files, and their check before any work."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import Columns, holds_splits, iter_rows, split_file
from edge.runtime.rows.kinds import is_hub, is_saved


def shortlist_files(data: Path) -> list[Path]:
    """The files that a shortlist is made from and checked with.

    Raises:
        UsageError: there are none.
    """
    if not holds_splits(data):
        files = [data]
    else:
        files = [path for name in ("train", "dev") if (path := split_file(data, name))]
    if not files or not all(path.exists() or is_hub(path) for path in files):
        raise UsageError(f"--shortlist {data}: no such file, or a folder without train.jsonl")
    return files


def check_shortlist_data(data: Path, columns: Columns) -> None:
    """Read all rows once, in constant memory.

    Raises:
        UsageError: there are no files.
        DataError: a file can't be read more than once, is empty or damaged, or has a bad row.
        MissingExtraError: the library that reads this kind is not installed.
    """
    for path in shortlist_files(data):
        # It is read again for its hash and by the worker, which a pipe does not allow.
        if not (path.is_file() or is_hub(path) or is_saved(path)):
            raise DataError("is not a regular file; give --shortlist a file of rows", path=path)
        if not sum(1 for _ in iter_rows(path, columns)):
            raise DataError("the file has no rows", path=path)
