"""Rows dealt to train, dev and test by a hash, so that a row's side never changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edge.runtime.errors import DataError, UsageError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.rows import SPLITS, Columns, Row, read_rows
from edge.train.augment.offline import PARENT
from edge.train.data import hash_fraction, normalize_for_dedup

_COLUMNS = Columns()


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
    """Write train.jsonl, dev.jsonl and, with a share, test.jsonl into `output`; rows of each.

    Raises:
        UsageError: shares that leave nothing to train on.
        DataError: as `assign_splits`, or rows that can't be used.
        OutputExistsError: the folder is there and `force` is off.
    """
    for option, share in (("--dev-ratio", dev_ratio), ("--test-ratio", test_ratio)):
        if not 0 <= share < 1:
            raise UsageError(f"{option} {share:g}: must be from 0 to below 1")
    if not 0 < dev_ratio + test_ratio < 1:
        raise UsageError(
            f"--dev-ratio {dev_ratio:g} and --test-ratio {test_ratio:g} must add up to more than 0"
            " and less than 1"
        )
    shares = {"test": test_ratio, "dev": dev_ratio}
    splits = assign_splits(read_rows(data, columns), shares, path=Path(data), group_by=group_by)
    with new_folder(output, force=force) as folder:
        for split, rows in splits.items():
            lines = (json.dumps(dict(row.fields), ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {split: len(rows) for split, rows in splits.items()}


def assign_splits(
    rows: Sequence[Row], shares: dict[str, float], *, path: Path, group_by: str | None = None
) -> dict[str, list[Row]]:
    """Rows by split; those with one value of `group_by`, or one input, stay together.

    Without `group_by` the input decides, case and white space aside; of a row that was made by
    `edge data augment`, the input that it was made of.

    Raises:
        DataError: a row lacks the column, a split came out empty, or an input would be in two.
    """
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS if shares.get(split, 1.0) > 0}
    sides: dict[str, tuple[str, int]] = {}
    for row in rows:
        side = _side(hash_fraction(_key(row, path, group_by)), shares)
        for text in {normalize_for_dedup(row.input), normalize_for_dedup(_parent(row))}:
            other, line = sides.setdefault(text, (side, row.line))
            if other != side:
                raise DataError(
                    f"this input, or the one it was made of, is in line {line} too, and the two"
                    f" would be in {side} and {other}; group by another column (--group-by), or"
                    " take one of the rows out",
                    path=path,
                    line=row.line,
                )
        splits[side].append(row)
    empty = [split for split, dealt in splits.items() if not dealt]
    if empty:
        what = f"groups by {group_by!r}" if group_by else "rows"
        raise DataError(
            f"{len(rows)} rows leave no {' and no '.join(empty)} split; change the shares, or give"
            f" more {what}",
            path=path,
        )
    return splits


def _side(place: float, shares: dict[str, float]) -> str:
    """Test from 0, dev after it, the rest to train on: a larger share takes none of the others'."""
    for split in ("test", "dev"):
        place -= shares.get(split, 0.0)
        if place < 0:
            return split
    return "train"


def _key(row: Row, path: Path, group_by: str | None) -> str:
    if group_by is None:
        return normalize_for_dedup(_parent(row))
    value = row.fields.get(group_by)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise DataError(
            f"no text or number in the column {group_by!r}; this row has:"
            f" {', '.join(map(repr, row.fields))} (choose with --group-by)",
            path=path,
            line=row.line,
        )
    return str(value)


def _parent(row: Row) -> str:
    parent = row.fields.get(PARENT)
    return parent if isinstance(parent, str) and parent else row.input
