"""`edge compare`: latency ratios of two benchmark reports."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.param_types import INPUT, FiniteFloat


@click.command(cls=Command)
@click.argument("old", metavar="OLD.json", type=INPUT)
@click.argument("new", metavar="NEW.json", type=INPUT)
@click.option(
    "--fail-slower",
    type=FiniteFloat(1.0),
    metavar="RATIO",
    help="Exit with 1 if a p50 is more than RATIO times the old one, or is missing.",
)
def command(old: Path, new: Path, fail_slower: float | None) -> None:
    """Show p50 and p95 of NEW.json as ratios to OLD.json, two reports of edge bench --json.

    Artifacts are paired by name, format, quantization, batch size and concurrency.
    """
    from edge.bench.report.document import read_document
    from edge.cli.display.comparison import check_regressions, print_comparison

    comparison = print_comparison(read_document(old), read_document(new))
    check_regressions(comparison, fail_slower)
