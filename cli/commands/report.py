"""`edge report`: a benchmark report shown again or converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.base import Command
from edge.cli.display.bench import report_options, report_outputs, show_file
from edge.cli.options import wide_option
from edge.cli.param_types import INPUT, OUTPUT


@click.command(cls=Command)
@click.argument("file", type=INPUT)
@report_options
@wide_option
@click.option(
    "--plot",
    "plot_file",
    type=OUTPUT,
    metavar="FILE",
    help="Write the bar chart of a report of bench-engines, as .svg or .png.",
)
def command(file: Path, plot_file: Path | None, **outputs: Any) -> None:
    """Show the report in FILE, written by edge bench --json, or convert it.

    Nothing is measured. The same file always gives the same output.
    """
    if plot_file is not None:
        from edge.bench.report.engine_plot import write_engine_plot
        from edge.runtime.errors import UsageError

        if any(outputs.values()):
            raise UsageError("--plot can't be combined with --markdown, --html or --plots")
        write_engine_plot(file, plot_file)
        return
    show_file(file, report_outputs(outputs))
