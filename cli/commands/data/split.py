"""`edge data split`: rows split into train, dev and test."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.options import column_options, force_option, output_option
from edge.cli.param_types import INPUT


@click.command(name="split", cls=Command, short_help="Split rows into train, dev and test.")
@click.argument("data", type=INPUT)
@output_option("Folder for the splits.", metavar="FOLDER")
@force_option
@click.option(
    "--dev-ratio", type=float, default=0.1, metavar="RATIO", help="Ratio of rows for dev."
)
@click.option(
    "--test-ratio", type=float, default=0.0, metavar="RATIO", help="Ratio of rows for test."
)
@click.option(
    "--group-by", metavar="COLUMN", help="Keep rows with the same value of this column together."
)
@column_options
def split(
    data: Path,
    output: Path,
    force: bool,
    dev_ratio: float,
    test_ratio: float,
    group_by: str | None,
    input_column: str,
    target_column: str,
) -> None:
    """Split the rows of the file DATA into train.jsonl, dev.jsonl and test.jsonl.

    The split of a row depends only on a hash of its input or group, so it does not change when rows
    are added. Fails if an input would be in two splits.
    """
    from edge.runtime.rows import Columns
    from edge.train.data.split import write_splits

    counts = write_splits(
        data,
        output,
        columns=Columns(input_column, target_column),
        dev_ratio=dev_ratio,
        test_ratio=test_ratio,
        group_by=group_by,
        force=force,
    )
    for name, count in counts.items():
        click.echo(f"{output / f'{name}.jsonl'}: {count:,} rows")
