"""Parquet files, a few rows in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.runtime.errors import DataError, error_reason, library_errors, one_line
from edge.runtime.registry import missing_extra
from edge.runtime.rows.class_labels import METADATA_KEY, Labels, labels_of_metadata, with_names

_ROWS = 512  # read at once


class ParquetRows:
    """An open Parquet file.

    Attributes:
        schema: pyarrow's schema of the file.
        features: The part of its metadata that names class labels, to be written with the columns.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self.schema: Any = file.schema_arrow
        metadata = self.schema.metadata or {}
        self._labels: Labels = labels_of_metadata(metadata)
        self.features = {key: metadata[key] for key in (METADATA_KEY,) if key in metadata}

    def tables(self) -> Iterator[tuple[Any, list[Mapping[str, object]]]]:
        """Batches of rows: pyarrow's record batch, and the columns of each row.

        Class labels are numbers in the former and names in the latter.

        Raises:
            DataError: The file is damaged, or holds a value that Python lacks, such as a year
                above 9999. The message names the row and the column.
        """
        before = 0
        with library_errors(DataError, self._path, "reading failed before the end"):
            for table in self._file.iter_batches(batch_size=_ROWS):
                try:
                    rows = table.to_pylist()
                except (ValueError, OverflowError, LookupError) as error:
                    raise self._unreadable(table, before) or error from error
                yield (
                    table,
                    [
                        with_names(values, self._labels, self._path, before + number)
                        for number, values in enumerate(rows, 1)
                    ],
                )
                before += len(rows)

    def _unreadable(self, table: Any, before: int) -> DataError | None:
        """The first value that can't be read."""
        for name, column in zip(table.schema.names, table.columns, strict=True):
            for number, value in enumerate(column, 1):
                try:
                    value.as_py()
                except (ValueError, OverflowError, LookupError) as error:
                    return DataError(
                        f"column {name!r} can't be read ({one_line(error_reason(error), 200)})",
                        path=self._path,
                        line=before + number,
                    )
        return None


@contextmanager
def open_parquet(path: Path) -> Iterator[ParquetRows]:
    """Open a Parquet file.

    Raises:
        DataError: The file is missing, not a whole Parquet file, or has two columns of one name.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise missing_extra(f"{path}", "pyarrow", "parquet") from error
    if not path.is_file():
        raise DataError("is not a file" if path.exists() else "no such file", path=path)
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"not a whole Parquet file ({one_line(error, 200)})", path=path) from error
    with file:
        with library_errors(DataError, path, "not a whole Parquet file"):
            opened = ParquetRows(path, file)
        names = opened.schema.names
        if len({*names}) < len(names):
            raise DataError("two columns have the same name", path=path)
        yield opened
