"""`edge data split`: rows dealt to train, dev and test."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.options import column_options


@click.command(name="split")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder for the splits."
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dev-ratio", type=float, default=0.1, show_default=True, help="Share of dev.")
@click.option("--test-ratio", type=float, default=0.0, show_default=True, help="Share of test.")
@click.option("--group-by", metavar="COLUMN", help="Rows with one value here stay together.")
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
    """Deal the rows of the file DATA to train.jsonl, dev.jsonl and test.jsonl, by a hash.

    A row's side follows from its input alone (or its group), whatever the other rows are: the same
    rows every time. Refuses a split that has one input on two sides.
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
