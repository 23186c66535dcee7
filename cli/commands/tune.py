"""`edge tune`: threads and engine settings of an artifact, chosen by measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.options import input_column_option, trust_option
from edge.cli.param_types import INPUT, PATH, IntegerList

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.tune import Tuning
    from edge.runtime.rows import Row


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--data",
    type=INPUT,
    metavar="FILE",
    show_default="one input of 32 tokens",
    help="Rows with inputs of realistic length.",
)
@input_column_option
@click.option(
    "--threads-to-try",
    type=IntegerList(),
    metavar="N,...",
    show_default="up to the physical cores",
    help="Numbers of threads to try, e.g. 1,2.",
)
@click.option("--runs", type=int, default=30, metavar="N", help="Timed answers per candidate.")
@trust_option
def command(
    artifact: Path,
    data: Path | None,
    input_column: str,
    threads_to_try: tuple[int, ...] | None,
    runs: int,
    trust_code: bool,
) -> None:
    """Choose threads and engine settings of ARTIFACT by measurement, and store them in it.

    Candidates take turns and answer one input at a time, with answers of fixed length. More threads
    are chosen only if the gain exceeds the noise. With --data, drafts from the input are measured,
    too, and become the default if they are faster. A folder of artifacts stands for all of them.

    The settings and measurements are stored in edge.json. --threads of other commands and
    load(path, threads=N) override them.
    """
    from edge.cli.display.console import quiet_libraries
    from edge.runtime.artifact import find_artifacts

    rows = None if data is None else read_inputs(data, input_column)
    folders = find_artifacts(artifact)
    quiet_libraries()
    tune_all(folders, rows, threads_to_try, runs, trust_code=trust_code)


def tune_all(
    folders: Sequence[Path],
    rows: Sequence[Row] | None = None,
    threads: Sequence[int] | None = None,
    runs: int = 30,
    *,
    trust_code: bool = False,
) -> None:
    """Tune each artifact with a progress display, and print the measurements and the choice.

    Raises:
        EdgeError: A manifest can't be written; checked before anything is measured.
        TerminatedError: SIGTERM or SIGHUP; the artifacts that were tuned keep their settings.
    """
    from edge.bench.signals import signals_end_command
    from edge.runtime.artifact.manifest import MANIFEST_NAME
    from edge.runtime.platform.destination import check_writable

    for folder in folders:
        check_writable(folder / MANIFEST_NAME)
    tuned: list[Path] = []

    def kept() -> str:
        return f"settings are stored in {len(tuned)} of {len(folders)} artifacts"

    with signals_end_command(kept):
        for folder in folders:
            _tune_one(folder, rows, threads, runs, trust_code=trust_code)
            tuned.append(folder)


def _tune_one(
    folder: Path,
    rows: Sequence[Row] | None,
    threads: Sequence[int] | None,
    runs: int,
    *,
    trust_code: bool,
) -> None:
    from edge.bench.tune import tune
    from edge.cli.display.console import PhaseBars
    from edge.cli.display.tables import print_table

    with PhaseBars() as bars:
        tuning = tune(
            folder,
            rows=rows,
            threads=threads,
            runs=runs,
            trust_code=trust_code,
            on_progress=lambda phase, done, of: bars.show(
                phase, done, of, f"{phase} {folder.name}"
            ),
        )
    print_table(_table(folder, tuning))
    click.echo(f"{folder}: {describe(tuning.chosen)}, stored in edge.json")
    if tuning.drafts is not None:
        gain = tuning.drafts.gain
        verdict = "on by default" if tuning.drafts.longest else "they stay off"
        click.echo(
            f"{folder}: drafts from the input are {gain.speedup:.2f} × as fast on these rows"
            f" ({gain.tokens_per_step:.1f} tokens per decoder step): {verdict}"
        )


def read_inputs(data: Path, input_column: str) -> list[Row]:
    """The rows of a file, or of the dev split of a folder; targets are not needed."""
    from edge.runtime.rows import Columns, dev_file, read_rows

    return read_rows(dev_file(data), Columns(input=input_column), need_target=False)


def describe(settings: dict[str, object]) -> str:
    """The settings on one line."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _table(folder: Path, tuning: Tuning) -> Table:
    from rich.table import Table
    from rich.text import Text

    cores = tuning.machine["cores"]
    table = Table(
        title=Text(
            f"{folder.name}: {tuning.input_tokens} tokens in, {tuning.new_tokens} out;"
            f" {cores} cores, {tuning.machine['cpu']}"
        )
    )
    table.add_column("settings")
    table.add_column("p50", justify="right")
    table.add_column("runs", justify="right")
    table.add_column("")
    for candidate in (*tuning.candidates, *tuning.screened):
        chosen = candidate.settings == tuning.chosen
        table.add_row(
            describe(candidate.settings),
            f"{candidate.p50:.1f} ms ({candidate.p25:.1f}–{candidate.p75:.1f})",
            str(candidate.runs),
            "chosen" if chosen else "",
        )
    return table
