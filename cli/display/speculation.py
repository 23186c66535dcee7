"""Progress and tables of `edge bench-speculation`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.display.json_output import tables_beside, write_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from edge.bench.speculation.results import SpeculationReport
    from edge.runtime.rows import Row


def bench_speculation(
    artifacts: Sequence[Path],
    rows: Sequence[Row],
    *,
    draft_tokens: int,
    replay: str | None,
    runs: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Measure each artifact, print its table when it is done, and write the reports.

    Raises:
        UnsupportedError: The engine of an artifact does not support drafts.
        UsageError: An unknown shape, or too few runs.
    """
    from edge.bench.engines.cache import default_cache
    from edge.bench.speculation.results import speculation_document
    from edge.bench.speculation.run import run_speculation
    from edge.cli.display.console import progress_bar, stdout_console

    reports = []
    for artifact in artifacts:
        with progress_bar() as progress:
            task = progress.add_task("rows", total=len(rows))
            report = run_speculation(
                artifact,
                rows,
                draft_tokens=draft_tokens,
                replay=replay,
                cache=default_cache(),
                runs=runs,
                threads=threads,
                on_progress=partial(_show, progress, task),
            )
        reports.append(report)
        with tables_beside(json_file):
            stdout_console().print(speculation_table(report))
            click.echo(
                f"{report.identical}/{report.rows} answers identical with drafts of up to"
                f" {report.draft_tokens} tokens; {report.tokens_per_step:.2f} tokens per decoder"
                f" step over all rows; {report.threads} thread(s)."
            )
    if json_file is not None:
        write_json(speculation_document(reports), json_file)


def _show(progress: Progress, task: TaskID, phase: str, done: int, of: int) -> None:
    progress.update(task, description=phase, completed=done, total=of)


def speculation_table(report: SpeculationReport) -> Table:
    """One line per comparison."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{report.artifact}: greedy search with and without drafts")
    table.add_column("comparison")
    for name in ("tokens per step", "p50 without drafts", "p50 with drafts", "× faster (p5–p95)"):
        table.add_column(name, justify="right")
    for gain in report.gains:
        table.add_row(
            Text(gain.what),
            f"{gain.tokens_per_step:.2f}",
            f"{gain.plain_ms:.1f} ms",
            f"{gain.drafted_ms:.1f} ms",
            f"{gain.speedup:.2f} ({gain.speedup_p5:.2f}–{gain.speedup_p95:.2f})",
        )
    return table
