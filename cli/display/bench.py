"""`edge bench` and `edge report`: what they print, and the files that they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge.cli.options import command_line

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge.bench.artifacts.results import BenchSettings, Report
    from edge.bench.report.write import Outputs
    from edge.runtime.rows import Row

F = TypeVar("F", bound=Callable[..., Any])

_REPORT_OPTIONS = (
    click.option(
        "--markdown",
        "markdown_file",
        type=click.Path(path_type=Path),
        help="Write the report as Markdown.",
    ),
    click.option(
        "--html",
        "html_file",
        type=click.Path(path_type=Path),
        help="Write the report as one page with plots, which needs no network.",
    ),
    click.option(
        "--plots",
        "plots_folder",
        type=click.Path(path_type=Path),
        help="Write the plots into this folder as PNG.",
    ),
)
REPORT_NAMES = ("markdown_file", "html_file", "plots_folder")


def report_options(function: F) -> F:
    """Where reports go; the function gets them as keywords for `report_outputs`."""
    for option in reversed(_REPORT_OPTIONS):
        function = option(function)
    return function


def report_outputs(values: Mapping[str, Any], json_file: Path | None = None) -> Outputs:
    """The files that the options ask for, checked before anything is measured.

    Raises:
        MissingExtraError: what a report needs is not installed.
    """
    from edge.bench.report.write import Outputs

    markdown_file, html_file, plots_folder = (values[name] for name in REPORT_NAMES)
    outputs = Outputs(json_file, markdown_file, html_file, plots_folder)
    outputs.check()
    return outputs


def show(document: Mapping[str, Any]) -> None:
    """Print the tables and what has to be known to read them."""
    from edge.bench.report.results import verdict
    from edge.bench.report.tables import notes
    from edge.bench.report.terminal import terminal_tables
    from edge.cli.display.console import stdout_console

    for table in terminal_tables(document):
        stdout_console().print(table)
    for note in notes(document):
        click.echo(note)
    click.echo(verdict(document))


def measure(
    folders: Sequence[Path],
    rows: Sequence[Row],
    target_ms: float,
    settings: BenchSettings,
    outputs: Outputs,
    *,
    threads: int | None = None,
    data: Path | None = None,
    reference: Path | None = None,
) -> Report:
    """Run the benchmark with a progress display, write the reports and print the tables.

    Raises:
        BenchInterruptedError: After Ctrl-C, once the results so far are written and printed.
    """
    from edge.bench.artifacts.results import BenchInterruptedError
    from edge.bench.artifacts.runner import run_bench
    from edge.bench.report.write import write_reports
    from edge.cli.display.console import progress_bar

    stopped = None
    try:
        with progress_bar() as progress:
            tasks: dict[str, TaskID] = {}

            def on_progress(phase: str, what: str, done: int, of: int) -> None:
                # Loading shares one bar; each measured artifact has its own.
                label = phase if phase == "load" else f"{phase} {Path(what).name}".strip()
                if label not in tasks:
                    tasks[label] = progress.add_task(label, total=of)
                progress.update(tasks[label], completed=done)

            report = run_bench(
                folders,
                rows,
                target_ms=target_ms,
                settings=settings,
                threads=threads,
                reference=reference,
                data=data,
                command=command_line(),
                on_progress=on_progress,
            )
    except BenchInterruptedError as error:
        stopped, report = error, error.report
    document = report.as_json()
    write_reports(document, outputs)
    show(document)
    if stopped is not None:
        raise stopped
    return report
