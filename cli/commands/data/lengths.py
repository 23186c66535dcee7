"""`edge data lengths`: token lengths, maximum lengths to choose, duplicates, leakage, padding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.options import column_options

if TYPE_CHECKING:
    from rich.table import Table

    from edge.train.data.statistics import LengthReport

_MOST_TASKS = 12  # that are listed


@click.command(name="lengths")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="ID_OR_PATH", help="Whose tokens are counted.")
@column_options
@click.option("--task-column", default="task", show_default=True, help="Column of the task.")
@click.option("--prefix", help='Prompt before the input, such as "[{task}] {input}".')
@click.option("--max-source-length", type=click.IntRange(1), help="[recommended from the data]")
@click.option("--max-target-length", type=click.IntRange(1), help="[recommended from the data]")
@click.option(
    "--long",
    "policy",
    type=click.Choice(["truncate", "drop", "chunk"]),
    help="Tell of this way with longer rows only.",
)
@click.option(
    "--tokens-per-step",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Tokens of a batch, for the padding.",
)
@click.option("--histogram", type=click.Path(path_type=Path), help="Write a PNG here.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write figures here.")
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
    tokens_per_step: int,
    histogram: Path | None,
    json_file: Path | None,
) -> None:
    """Measure DATA in the tokens of a model: lengths, <unk>, duplicates, leakage, padding.

    Recommends maximum lengths (the 95th percentile of the training split, rounded up to a multiple
    of 8) and tells what --long truncate, drop or chunk would do to the rows over them.
    """
    from edge.cli.display.console import quiet_libraries, status, stdout_console
    from edge.runtime.platform.atomic import new_file
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
        )
    if histogram is not None:
        write_histogram(report, histogram)
    if json_file is not None:
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    stdout_console().print(_table(report))
    for line in _lines(report, policy, tokens_per_step):
        click.echo(line)
    for path in filter(None, (histogram, json_file)):
        click.echo(f"written: {path}")


def _table(report: LengthReport) -> Table:
    from rich.table import Table

    table = Table(title="Tokens, prompt and </s> counted", title_justify="left")
    table.add_column("split")
    table.add_column("column")
    for name in ("rows", "mean", "p50", "p95", "p99", "max", "<unk>", "duplicates", "in train too"):
        table.add_column(name, justify="right")
    for name, split in report.splits.items():
        for column, spread in (("input", split.input), ("target", split.target)):
            first = column == "input"
            figures = (spread.p50, spread.p95, spread.p99, spread.max)
            table.add_row(
                name if first else "",
                column,
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
                f"  --long {name:<8} touches {effect.touched:,} rows, leaves {effect.rows:,}, loses"
                f" {effect.lost:.2%} of the tokens"
            )
    yield f"--tokens-per-step {tokens_per_step}: {report.padding}"
    if train.unknown_targets:
        yield (
            f"warning: {train.unknown_targets:,} of {train.rows:,} training targets hold characters"
            " that the vocabulary lacks; they can't be generated"
        )
    if report.leak is not None:
        yield (
            f"warning: inputs are in the training split and in another, such as {report.leak!r}:"
            " figures will flatter the model"
        )
    if train.tasks:
        shown = list(train.tasks.items())[:_MOST_TASKS]
        more = len(train.tasks) - len(shown)
        counts = ", ".join(f"{name} {count:,}" for name, count in shown)
        yield f"tasks: {counts}" + (f", and {more} more" if more else "")
