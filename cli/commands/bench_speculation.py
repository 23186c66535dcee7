"""`edge bench-speculation`: speedup of drafts that are copied from the input."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.options import column_options, json_option, limit_option, threads_option
from edge.cli.param_types import COUNT, INPUT, PATH


@click.command(cls=Command)
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=PATH)
@click.option(
    "--data",
    required=True,
    type=INPUT,
    metavar="FILE",
    help="Rows with targets, or a folder with a dev split.",
)
@click.option("--draft-tokens", type=COUNT, default=6, metavar="N", help="Maximum draft length.")
@click.option(
    "--replay", metavar="SHAPE", help="Also replay the drafts on this shape, e.g. flan-t5-base."
)
@click.option("--runs", type=int, default=30, metavar="N", help="Timed answers per comparison.")
@limit_option
@json_option("the report")
@column_options
@threads_option()
def command(
    artifacts: tuple[Path, ...],
    data: Path,
    draft_tokens: int,
    replay: str | None,
    runs: int,
    limit: int | None,
    json_file: Path | None,
    input_column: str,
    target_column: str,
    threads: int | None,
) -> None:
    """Compare greedy search with and without drafts for each ARTIFACT (onnx, gguf).

    A folder of artifacts stands for all of them. Every row is answered both ways: identical answers
    and tokens per decoder step are counted. Then pairs of answers are timed.
    """
    from edge.cli.display.console import quiet_libraries
    from edge.cli.display.speculation import bench_speculation
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.rows import Columns, dev_file, read_rows

    quiet_libraries()
    columns = Columns(input=input_column, target=target_column)
    bench_speculation(
        [folder for given in artifacts for folder in find_artifacts(given)],
        read_rows(dev_file(data), columns)[:limit],
        draft_tokens=draft_tokens,
        replay=replay,
        runs=runs,
        threads=threads,
        json_file=json_file,
    )
