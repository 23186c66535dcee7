"""`edge report`: what `edge bench --json` kept, shown again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.display.bench import report_options, report_outputs, show_file


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@report_options
def command(file: Path, **outputs: Any) -> None:
    """Show a benchmark again from FILE, which `edge bench --json FILE` wrote; nothing is measured.

    The same file always gives the same reports.
    """
    show_file(file, report_outputs(outputs))
