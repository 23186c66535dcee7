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
        UsageError: An unknown shape, too few runs, or `json_file` can't be written.
        TerminatedError: SIGTERM or SIGHUP; the reports of measured artifacts are written.
    """
    from edge.bench.engines.cache import default_cache
    from edge.bench.report.write import Outputs
    from edge.bench.signals import signals_end_command
    from edge.bench.speculation.results import speculation_document
    from edge.bench.speculation.run import run_speculation
    from edge.cli.display.console import progress_bar
    from edge.runtime.artifact import Artifact
    from edge.runtime.engines import ENGINES

    Outputs(json=json_file).check()
    for artifact in artifacts:  # a missing library is named before the progress bar
        ENGINES.load(Artifact.open(artifact).manifest.format)
    reports: list[SpeculationReport] = []

    def kept() -> str:
        return f"{len(reports)} of {len(artifacts)} artifacts were measured"

    with signals_end_command(kept):
        try:
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
                    _print_report(report)
        finally:  # also what was measured before an error or a signal
            if json_file is not None and reports:
                write_json(speculation_document(reports), json_file)


def _print_report(report: SpeculationReport) -> None:
    from edge.cli.display.tables import print_table

    print_table(speculation_table(report))
    click.echo(
        f"{report.identical}/{report.rows} answers identical with drafts of up to"
        f" {report.draft_tokens} tokens; {report.tokens_per_step:.2f} tokens per decoder step over"
        f" all rows; {report.threads} thread(s)."
    )


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
