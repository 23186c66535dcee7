"""`edge data lengths`: token lengths, recommended limits, duplicates, leakage and padding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.display.json_output import STDOUT, tables_beside, write_json
from edge.cli.options import column_options, json_option
from edge.cli.param_types import COUNT, INPUT, OUTPUT

if TYPE_CHECKING:
    from rich.table import Table

    from edge.train.data.statistics import LengthReport

_MAX_TASKS = 12  # in the list of tasks


@click.command(name="lengths", cls=Command, short_help="Token lengths, duplicates and leakage.")
@click.argument("data", type=INPUT)
@click.option(
    "-m", "--model", required=True, metavar="ID_OR_PATH", help="Model whose tokenizer is used."
)
@column_options
@click.option("--task-column", default="task", metavar="NAME", help="Column of the task.")
@click.option("--prefix", metavar="TEXT", help="Prompt before the input, e.g. '[{task}] {input}'.")
@click.option(
    "--max-source-length",
    type=COUNT,
    metavar="N",
    show_default="recommended from the data",
    help="Maximum tokens of an input.",
)
@click.option(
    "--max-target-length",
    type=COUNT,
    metavar="N",
    show_default="recommended from the data",
    help="Maximum tokens of a target.",
)
@click.option(
    "--long",
    "policy",
    type=click.Choice(["truncate", "drop", "chunk"]),
    show_default="all",
    help="Report only this over-length policy.",
)
@click.option(
    "--vocabulary",
    type=click.Choice(["extend", "keep", "refuse"]),
    default="extend",
    show_default=True,
    help="Count with the characters that edge train adds, without them, or stop.",
)
@click.option(
    "--tokens-per-step",
    type=COUNT,
    default=4096,
    metavar="N",
    help="Tokens per batch, to compute the padding.",
)
@click.option("--histogram", type=OUTPUT, metavar="FILE", help="Write a histogram as PNG.")
@json_option("the statistics")
def lengths(
    data: Path,
    model: str,
    input_column: str,
    target_column: str,
    task_column: str,
    prefix: str | None,
    max_source_length: int | None,
    max_target_length: int | None,
    policy: str | None,
    vocabulary: str,
    tokens_per_step: int,
    histogram: Path | None,
    json_file: Path | None,
) -> None:
    """Count the tokens of DATA, and find <unk>, duplicates, leakage and padding.

    Recommends maximum lengths: the 95th percentile of the training split, rounded up to a multiple
    of 8. Reports what --long truncate, drop or chunk of edge train would do to longer rows.
    """
    from edge.cli.display.console import quiet_libraries, status
    from edge.cli.display.tables import print_table
    from edge.runtime.rows import Columns
    from edge.train.data.statistics import measure_lengths, write_histogram
    from edge.train.model.loading import load_tokenizer

    quiet_libraries()
    with status("counting tokens"):
        report = measure_lengths(
            data,
            load_tokenizer(model),
            columns=Columns(input_column, target_column, task_column),
            prefix=prefix,
            max_source_length=max_source_length,
            max_target_length=max_target_length,
            tokens_per_step=tokens_per_step,
            vocabulary=vocabulary,
        )
    if histogram is not None:
        write_histogram(report, histogram)
    if json_file is not None:
        write_json(report.as_json(), json_file)
    with tables_beside(json_file):
        print_table(_table(report))
        for line in _lines(report, policy, tokens_per_step):
            click.echo(line)
        for path in (histogram, json_file):
            if path not in (None, STDOUT):
                click.echo(f"written: {path}")


def _table(report: LengthReport) -> Table:
    from rich.table import Table

    table = Table(title="Tokens, with prompt and </s>", title_justify="left")
    table.add_column("split")
    for name in (
        "rows",
        "mean",
        "p50",
        "p95",
        "p99",
        "max",
        "<unk>",
        "duplicates",
        "in train",
    ):
        table.add_column(name, justify="right")
    for name, split in report.splits.items():
        for column, spread in (("input", split.input), ("target", split.target)):
            first = column == "input"
            figures = (spread.p50, spread.p95, spread.p99, spread.max)
            table.add_row(
                f"{name} {column}",
                f"{split.rows:,}" if first else "",
                f"{spread.mean:.1f}",
                *map(str, figures),
                f"{split.unknown:.2%}" if first else "",
                str(split.duplicates) if first else "",
                ("–" if name == "train" else str(split.leaked)) if first else "",
            )
    return table


def _lines(report: LengthReport, policy: str | None, tokens_per_step: int) -> Iterator[str]:
    train = report.splits["train"]
    source, target = report.recommended
    yield f"recommended: --max-source-length {source} --max-target-length {target}"
    yield f"over {report.limits[0]} input or {report.limits[1]} target tokens in training:"
    for name, effect in report.long.items():
        if policy in (None, name):
            yield (
                f"  --long {name:<8} changes {effect.touched:,} rows, keeps {effect.rows:,}, loses"
                f" {effect.lost:.2%} of the tokens"
            )
    yield f"--tokens-per-step {tokens_per_step}: {report.padding}"
    if report.vocabulary.message is not None:
        yield f"--vocabulary {report.vocabulary.policy}: {report.vocabulary}"
    if train.unknown_targets:
        yield (
            f"warning: {train.unknown_targets:,} of {train.rows:,} training targets contain"
            " characters that are not in the vocabulary and can't be generated"
        )
    if report.leak is not None:
        yield (
            f"warning: inputs of the training split are also in another split, as {report.leak!r};"
            " the scores will be too high"
        )
    if train.tasks:
        shown = list(train.tasks.items())[:_MAX_TASKS]
        more = len(train.tasks) - len(shown)
        counts = ", ".join(f"{name} {count:,}" for name, count in shown)
        yield f"tasks: {counts}" + (f", and {more} more" if more else "")
