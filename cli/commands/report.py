"""`edge report`: a benchmark report shown again or converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.base import Command
from edge.cli.display.bench import report_options, report_outputs, show_file
from edge.cli.param_types import PATH


@click.command(cls=Command)
@click.argument("file", type=PATH)
@report_options
def command(file: Path, **outputs: Any) -> None:
    """Show the report in FILE, written by edge bench --json, or convert it.

    Nothing is measured. The same file always gives the same output.
    """
    show_file(file, report_outputs(outputs))
