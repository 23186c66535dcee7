"""Rows that vocabulary shortlists are made from: the files, and their check before any work."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import Columns, holds_splits, iter_rows, split_file, train_file
from edge.runtime.rows.kinds import is_hub, is_saved


def shortlist_files(data: Path) -> list[Path]:
    """The files that a shortlist is made from and checked with.

    Raises:
        UsageError: there is no such file.
        DataError: the folder has no train split.
    """
    files = [train_file(data)]
    if holds_splits(data) and (dev := split_file(data, "dev")):
        files.append(dev)
    if not all(path.exists() or is_hub(path) for path in files):
        raise UsageError(f"--shortlist {data}: no such file")
    return files


def check_shortlist_data(data: Path, columns: Columns) -> None:
    """Read all rows once, in constant memory.

    Raises:
        UsageError: there is no such file.
        DataError: there is no train split, or a file can't be read more than once, is empty or
            damaged, or has a bad row.
        MissingExtraError: the library that reads this kind is not installed.
    """
    for path in shortlist_files(data):
        # It is read again for its hash and by the worker, which a pipe does not allow.
        if not (path.is_file() or is_hub(path) or is_saved(path)):
            raise DataError("is not a regular file; give --shortlist a file of rows", path=path)
        if not sum(1 for _ in iter_rows(path, columns)):
            raise DataError("the file has no rows", path=path)
