"""Train, dev and test splits by a hash of each row, so that a row never changes sides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.runtime.errors import DataError, UsageError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.platform.destination import check_destination
from edge.runtime.rows import SPLITS, Columns, Row, read_rows, to_json

PARENT_COLUMN = "augmented_from"  # of augmented rows: the input that they were made from
_COLUMNS = Columns()


def normalize_for_dedup(text: str) -> str:
    """A form that is equal for texts that differ only in case or white space."""
    return " ".join(text.split()).casefold()


def hash_fraction(key: str) -> float:
    """A uniformly distributed number in [0, 1) that depends on the text alone (SHA-256)."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_hash(rows: Sequence[Row], dev_ratio: float, path: Path) -> tuple[list[Row], list[Row]]:
    """Split rows into training and held-out rows by the same hash as `assign_splits`.

    Rows whose inputs differ only in case and white space stay together, and so do a row and those
    that `edge data augment` made from it. Adding rows never moves the existing ones.

    Args:
        rows: The rows to split.
        dev_ratio: About this fraction of the rows is held out.
        path: The data's path, for the error message.

    Returns:
        The training rows and the held-out rows.

    Raises:
        DataError: One of the sides is empty.
    """
    train: list[Row] = []
    dev: list[Row] = []
    for row in rows:
        (dev if hash_fraction(_key(row, path, None)) < dev_ratio else train).append(row)
    if not train or not dev:
        side = "dev" if train else "training"
        raise DataError(
            f"--dev-ratio {dev_ratio} of {len(rows)} rows leaves no {side} row. Change the ratio,"
            " or put the splits into separate files",
            path=path,
        )
    return train, dev


def write_splits(
    data: str | Path,
    output: str | Path,
    *,
    columns: Columns = _COLUMNS,
    dev_ratio: float = 0.1,
    test_ratio: float = 0.0,
    group_by: str | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Write train.jsonl, dev.jsonl and, with a test ratio, test.jsonl into the folder `output`.

    Returns:
        The number of rows by split.

    Raises:
        UsageError: The ratios are out of range or leave nothing to train on.
        DataError: As `assign_splits`, or a row is not usable.
        OutputExistsError: The folder exists and `force` is off.
    """
    for option, ratio in (("--dev-ratio", dev_ratio), ("--test-ratio", test_ratio)):
        if not 0 <= ratio < 1:
            raise UsageError(f"{option} {ratio:g}: must be at least 0 and less than 1")
    if not 0 < dev_ratio + test_ratio < 1:
        raise UsageError(
            f"--dev-ratio {dev_ratio:g} and --test-ratio {test_ratio:g} must add up to more than 0"
            " and less than 1"
        )
    ratios = {"test": test_ratio, "dev": dev_ratio}
    splits = assign_splits(read_rows(data, columns), ratios, path=Path(data), group_by=group_by)
    check_destination(output, force=force, inputs=[data])
    with new_folder(output, force=force) as folder:
        for split, rows in splits.items():
            lines = (to_json(dict(row.fields)) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {split: len(rows) for split, rows in splits.items()}


def assign_splits(
    rows: Sequence[Row], ratios: Mapping[str, float], *, path: Path, group_by: str | None = None
) -> dict[str, list[Row]]:
    """Assign rows to splits; rows with equal inputs or equal `group_by` values stay together.

    Without `group_by` the hash is taken of the input without case and white space. A row that was
    made by `edge data augment` goes where the input goes that it was made from.

    Args:
        rows: The rows to assign.
        ratios: Fractions for "dev" and "test"; the rest is "train".
        path: The data's path, for error messages.
        group_by: A column of text or whole numbers.

    Raises:
        DataError: A row lacks the column, a split is empty, or an input is in two splits.
    """
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS if ratios.get(split, 1.0) > 0}
    sides: dict[str, tuple[str, int]] = {}
    for row in rows:
        side = _side(hash_fraction(_key(row, path, group_by)), ratios)
        for text in {normalize_for_dedup(row.input), normalize_for_dedup(_parent(row))}:
            other, line = sides.setdefault(text, (side, row.line))
            if other != side:
                raise DataError(
                    f"this input, or the one it was made from, is also in line {line}, and the two"
                    f" rows would be in {side} and {other}. Group by another column (--group-by),"
                    " or remove one of the rows",
                    path=path,
                    line=row.line,
                )
        splits[side].append(row)
    empty = [split for split, assigned in splits.items() if not assigned]
    if empty:
        what = f"distinct values of {group_by!r}" if group_by else "rows"
        raise DataError(
            f"{len(rows)} rows leave no {' and no '.join(empty)} split. Change the ratios, or add"
            f" more {what}",
            path=path,
        )
    return splits


def _side(fraction: float, ratios: Mapping[str, float]) -> str:
    """Test first, then dev, then train: a larger ratio never takes rows from another split."""
    for split in ("test", "dev"):
        fraction -= ratios.get(split, 0.0)
        if fraction < 0:
            return split
    return "train"


def _key(row: Row, path: Path, group_by: str | None) -> str:
    if group_by is None:
        return normalize_for_dedup(_parent(row))
    value = row.fields.get(group_by)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise DataError(
            f"no text or whole number in the column {group_by!r}; this row has:"
            f" {', '.join(map(repr, row.fields))} (choose with --group-by)",
            path=path,
            line=row.line,
        )
    return str(value)


def _parent(row: Row) -> str:
    parent = row.fields.get(PARENT_COLUMN)
    return parent if isinstance(parent, str) and parent else row.input
