"""`edge tune`: an artifact's thread count and engine settings, chosen by measurement here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from edge.bench.tune import Tuning
    from edge.runtime.rows import Row


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Rows whose inputs are of realistic length; default: one input of 32 tokens.",
)
@click.option("--input-column", default="input", show_default=True, help="Column of the input.")
@click.option(
    "--threads", help="Numbers of threads to try, such as 1,2; default: up to the physical cores."
)
@click.option("--runs", default=30, show_default=True, help="Timed answers of each candidate.")
def command(
    artifact: Path, data: Path | None, input_column: str, threads: str | None, runs: int
) -> None:
    """Measure ARTIFACT's thread counts and engine settings here, and store the best in it.

    Candidates take turns at answers of fixed length, one input at a time. More threads are chosen
    only where they are faster by more than the noise. A folder that holds several artifacts stands
    for all of them. The settings and figures go to edge.json; --threads of other commands, and
    load(path, threads=…), still have the last word.
    """
    from edge.cli.display.console import quiet_libraries
    from edge.runtime.artifact import find_artifacts

    numbers = parse_threads(threads)
    rows = None if data is None else read_inputs(data, input_column)
    folders = find_artifacts(artifact)
    quiet_libraries()
    tune_all(folders, rows, numbers, runs)


def tune_all(
    folders: Sequence[Path],
    rows: Sequence[Row] | None = None,
    threads: Sequence[int] | None = None,
    runs: int = 30,
) -> None:
    """Tune each artifact, with a progress display, and print what was measured and chosen."""
    from edge.bench.tune import tune
    from edge.cli.display.console import progress_bar, stdout_console

    for folder in folders:
        with progress_bar() as progress:
            show = _shown_on(progress, folder.name)
            tuning = tune(folder, rows=rows, threads=threads, runs=runs, on_progress=show)
        stdout_console().print(_table(folder, tuning))
        click.echo(f"{folder}: {describe(tuning.chosen)}, stored in edge.json")


def _shown_on(progress: Progress, name: str) -> Callable[[str, int, int], None]:
    """What shows each phase of one artifact's tuning as a bar."""
    tasks: dict[str, TaskID] = {}

    def show(phase: str, done: int, of: int) -> None:
        if phase not in tasks:
            tasks[phase] = progress.add_task(f"{phase} {name}", total=of)
        progress.update(tasks[phase], completed=done)

    return show


def read_inputs(data: Path, input_column: str) -> list[Row]:
    """The rows of a file, or of a folder's dev split; targets are not needed."""
    from edge.runtime.rows import Columns, dev_file, read_rows

    return read_rows(dev_file(data), Columns(input=input_column), need_target=False)


def parse_threads(text: str | None) -> list[int] | None:
    """[1, 2] from "1,2".

    Raises:
        UsageError: something else than whole numbers.
    """
    from edge.runtime.errors import UsageError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
        raise UsageError(f"--threads must be whole numbers such as 1,2, not {text!r}")
    return [int(part) for part in parts]


def describe(settings: dict[str, object]) -> str:
    """The settings in one line."""
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
