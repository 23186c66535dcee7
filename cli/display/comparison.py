"""Table and checks of `edge compare` and `edge bench --compare`: latency ratios of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.artifacts.compare import Comparison


def print_comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two reports, given as JSON documents, and print the ratios and the differences."""
    from edge.bench.artifacts.compare import compare
    from edge.cli.display.tables import print_table

    comparison = compare(old, new)
    if comparison.changes:
        print_table(comparison_table(comparison, str(old.get("created"))))
    for line in comparison.unpaired:
        click.echo(f"Not compared: {line}.")
    if comparison.other_machine:
        click.echo(f"The old run was {comparison.other_machine}. The ratios say little.")
    for difference in comparison.differences:
        click.echo(difference)
    return comparison


def check_regressions(comparison: Comparison, fail_slower: float | None) -> None:
    """Fail if a p50 is more than `fail_slower` times the old one; None checks nothing.

    Raises:
        UsageError: the old run was on another machine, or had other rows or lengths of answers, so
            the ratios say nothing.
        EdgeError: a result is slower, has no new latency or is missing from the new run, or there
            was nothing to compare.
    """
    from edge.runtime.errors import EdgeError, UsageError

    if fail_slower is None:
        return
    if comparison.other_machine:
        raise UsageError(
            f"--fail-slower: the old run was {comparison.other_machine};"
            " compare runs of one machine"
        )
    if comparison.other_calls:
        raise UsageError(
            f"--fail-slower: {comparison.other_calls} Compare runs with the same --data, --limit"
            " and --new-tokens"
        )
    if not comparison.changes:
        raise EdgeError(
            "--fail-slower: nothing was compared: no result of the old report was measured again"
        )
    slower = comparison.regressions(fail_slower)
    if slower:
        listed = "; ".join(
            f"{one.name} ({one.error})"
            if one.p50_ratio is None
            else f"{one.name} ({one.p50_ratio:.2f} times the p50: {one.p50:.1f} ms,"
            f" {one.old_p50:.1f} ms before)"
            for one in slower
        )
        raise EdgeError(f"slower than {fail_slower:g} times the old run: {listed}")
    if comparison.missing:
        raise EdgeError(
            f"--fail-slower: not measured again: {', '.join(comparison.missing)} (only in the old"
            " run)"
        )


def comparison_table(comparison: Comparison, created: str) -> Table:
    """One line for each result that both runs have; a ratio above 1 is slower."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"compared with the run of {created} (now ÷ then)")
    table.add_column("artifact")
    for name in ("p50 then", "p50 now", "ratio", "p95 then", "p95 now", "ratio"):
        table.add_column(name, justify="right")
    for change in comparison.changes:
        if change.p50 is None:
            table.add_row(Text(change.name), f"{change.old_p50:.1f} ms", Text(change.error or ""))
            continue
        table.add_row(
            Text(change.name),
            f"{change.old_p50:.1f} ms",
            f"{change.p50:.1f} ms",
            f"{change.p50_ratio:.2f}",
            f"{change.old_p95:.1f} ms",
            f"{change.p95:.1f} ms",
            f"{change.p95_ratio:.2f}",
        )
    return table
