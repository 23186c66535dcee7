"""`edge bench` and `edge report`: what they print, and the files that they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edge.bench.report.write import Outputs

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
