"""Rows of data of any usual kind, and the prompt around them; every error names file and line.

Training, the benchmark, calibration and `edge run --input` share this reader. Libraries are loaded
for Parquet and data sets only.
"""

from edge.runtime.rows.columns import Columns
from edge.runtime.rows.kinds import (
    SPLITS,
    data_sha256,
    data_size,
    dev_file,
    holds_splits,
    kind_of,
    split_file,
    train_file,
)
from edge.runtime.rows.lines import MAX_LINE_BYTES, iter_lines
from edge.runtime.rows.prompt import Prompt
from edge.runtime.rows.row import BadRow, Row, iter_rows, iter_rows_with_errors, read_rows
from edge.runtime.rows.serialization import to_json

__all__ = [
    "MAX_LINE_BYTES",
    "SPLITS",
    "BadRow",
    "Columns",
    "Prompt",
    "Row",
    "data_sha256",
    "data_size",
    "dev_file",
    "holds_splits",
    "iter_lines",
    "iter_rows",
    "iter_rows_with_errors",
    "kind_of",
    "read_rows",
    "split_file",
    "to_json",
    "train_file",
]
