"""Progress, tables and files of `edge bench` and `edge report`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge.cli.param_types import OUTPUT

if TYPE_CHECKING:
    from edge.bench.artifacts.results import BenchInterruptedError, Report
    from edge.bench.report.write import Outputs

F = TypeVar("F", bound=Callable[..., Any])

_REPORT_OPTIONS = (
    click.option(
        "--markdown",
        "markdown_file",
        type=OUTPUT,
        metavar="FILE",
        help="Write the report as Markdown.",
    ),
    click.option(
        "--html",
        "html_file",
        type=OUTPUT,
        metavar="FILE",
        help="Write the report as one self-contained page with plots.",
    ),
    click.option(
        "--plots",
        "plots_folder",
        type=OUTPUT,
        metavar="FOLDER",
        help="Write the plots as PNG files.",
    ),
)
REPORT_NAMES = ("markdown_file", "html_file", "plots_folder")


def report_options(function: F) -> F:
    """Add the options for report files; their values go to `report_outputs`."""
    for option in reversed(_REPORT_OPTIONS):
        function = option(function)
    return function


def report_outputs(values: Mapping[str, Any], json_file: Path | None = None) -> Outputs:
    """The files that the options ask for, checked before anything is measured.

    Raises:
        MissingExtraError: a library that a report needs is not installed.
        UsageError: a file can't be written.
    """
    from edge.bench.report.write import Outputs

    markdown_file, html_file, plots_folder = (values[name] for name in REPORT_NAMES)
    outputs = Outputs(json_file, markdown_file, html_file, plots_folder)
    outputs.check()
    return outputs


def warn_of_few_runs(runs: int, times: str = "--runs") -> None:
    """Say on stderr, before anything is measured, that so few runs can't show a target."""
    from edge.bench.timing.verdict import FEWEST_RUNS

    if 30 <= runs < FEWEST_RUNS:  # fewer are refused
        click.echo(
            f"edge: warning: {times} {runs} may not show that a target is met: that takes"
            f" {FEWEST_RUNS} timed runs at least",
            err=True,
        )


def measure(outputs: Outputs, **options: Any) -> Report:
    """Run the benchmark with a progress display, print the tables and write the reports.

    After Ctrl-C, SIGTERM or SIGHUP the same is done with what was measured until then.

    Args:
        outputs: The files to write.
        options: Arguments of `edge.bench.bench`.

    Raises:
        BenchInterruptedError: after Ctrl-C.
        TerminatedError: after SIGTERM or SIGHUP; it exits with 128 + the signal's number.
    """
    from edge.bench.artifacts.results import BenchInterruptedError
    from edge.bench.report.write import STDOUT, write_reports
    from edge.bench.signals import (
        SignalReceivedError,
        TerminatedError,
        signals_as_interrupt,
    )

    stopped: BenchInterruptedError | None = None
    with signals_as_interrupt():
        try:
            report = _run(options)
        except BenchInterruptedError as error:
            stopped, report = error, error.report
        except SignalReceivedError as error:
            raise TerminatedError(error.number, "nothing was measured yet") from None
        document = report.as_json()
        # After a hang-up there is no terminal to print to.
        terminal_errors = contextlib.suppress(OSError) if stopped else contextlib.nullcontext()
        try:
            with terminal_errors:
                show(document, to_stderr=outputs.json == STDOUT)
        finally:
            write_reports(document, outputs)
    if stopped is None:
        return report
    if stopped.number != signal.SIGINT:
        raise TerminatedError(stopped.number, "the report holds what was measured") from None
    raise stopped


def _run(options: Mapping[str, Any]) -> Report:
    from edge.bench import bench
    from edge.cli.display.console import PhaseBars
    from edge.cli.options import command_line

    with PhaseBars() as bars:

        def on_progress(phase: str, what: str, done: int, of: int) -> None:
            # One bar for loading, and one for each artifact that is measured.
            label = phase if phase == "load" else f"{phase} {Path(what).name}".strip()
            bars.show(label, done, of)

        return bench(**options, command=command_line(), on_progress=on_progress)


def show(document: Mapping[str, Any], *, to_stderr: bool = False) -> None:
    """Print the tables, notes and verdict of a report of artifacts."""
    from edge.bench.report.results import verdict
    from edge.bench.report.tables import notes
    from edge.bench.report.terminal import terminal_tables
    from edge.cli.display.tables import print_table

    target = f"≤ {document['target_ms']:g} ms"
    with contextlib.redirect_stdout(sys.stderr if to_stderr else sys.stdout):
        for table in terminal_tables(document):
            print_table(table, important=("exact match", "p95", target, "p50"))
        for note in notes(document):
            click.echo(note)
        click.echo(verdict(document))


def show_file(path: Path, outputs: Outputs) -> None:
    """Print a report of any kind that `edge bench…` wrote, and convert it to `outputs`.

    Raises:
        DataError: the file is not such a report.
        UsageError: `outputs` are asked for that this kind of report does not have.
    """
    from edge.bench.documents import ENGINES, SPECULATION, kind_of, read_json
    from edge.bench.report.document import check_document
    from edge.bench.report.write import write_reports
    from edge.runtime.errors import UsageError

    values = read_json(path)
    kind = kind_of(values, path)
    if kind in (ENGINES, SPECULATION):
        if outputs:
            raise UsageError(
                f'{path} is a report of kind "{kind}", which has tables only; leave out'
                " --markdown, --html and --plots"
            )
        show_reports = _show_engines if kind == ENGINES else _show_speculation
        show_reports(values, path)
        return
    check_document(values, path)
    show(values)
    write_reports(values, outputs)


def _show_engines(values: Mapping[str, Any], path: Path) -> None:
    from edge.bench.engines.results import engine_reports
    from edge.cli.display.engines import print_report

    for report in engine_reports(values, path):
        print_report(report)


def _show_speculation(values: Mapping[str, Any], path: Path) -> None:
    from edge.bench.speculation.results import speculation_reports
    from edge.cli.display.speculation import speculation_table
    from edge.cli.display.tables import print_table

    for report in speculation_reports(values, path):
        print_table(speculation_table(report))
