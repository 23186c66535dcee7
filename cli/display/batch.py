"""Progress and summary of `edge run` over many files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from edge.runtime.batch.job import BatchJob
    from edge.runtime.batch.run import BatchTotals


def answer_dataset(
    job: BatchJob, inputs: Path, output: Path, executor: str, workers: int | None, force: bool
) -> None:
    """Answer a folder or pattern of shards, with progress on stderr.

    Raises:
        EdgeError: A shard or a row could not be answered.
    """
    import contextlib

    from edge.cli.display.console import progress_bar
    from edge.runtime.batch.run import BatchTotals, run_dataset
    from edge.runtime.errors import EdgeError

    totals = BatchTotals()
    events = run_dataset(
        job, inputs, output, totals, executor=executor, workers=workers, force=force
    )
    with contextlib.closing(events), contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar()) if sys.stderr.isatty() else None
        display = _Display(totals, bar)
        for event in events:
            display.show(event)
    click.echo(
        f"{totals.rows - totals.failed_rows:,} answers in {totals.shards:,} shards"
        f" ({totals.skipped:,} were finished before): {output}",
        err=True,
    )
    if totals.failed_rows:
        from edge.runtime.batch.shards import FAILED_NAME

        raise EdgeError(
            f"{totals.failed_rows:,} of {totals.rows:,} rows have no answer; each is in"
            f" {output / FAILED_NAME}/ with its error"
        )


class _Display:
    """A bar on a terminal, otherwise one line per finished shard."""

    def __init__(self, totals: BatchTotals, bar: Progress | None) -> None:
        self._totals = totals
        self._bar = bar
        self._task = bar.add_task("shards", total=None) if bar else None
        self._rows = 0

    def show(self, event: object) -> None:
        from edge.runtime.batch.pool import RowsProcessed
        from edge.runtime.batch.shards import ShardFinished

        totals = self._totals
        finished = len(totals.finished) + len(totals.failed)
        if isinstance(event, RowsProcessed):
            self._rows += event.count
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=f"shards ({max(self._rows, totals.rows):,} rows)",
                completed=finished,
                total=totals.shards,
            )
        elif isinstance(event, ShardFinished):
            failed = f", {event.failed:,} without an answer" if event.failed else ""
            click.echo(
                f"{event.name}: {event.rows:,} rows{failed} ({finished} of {totals.shards} shards)",
                err=True,
            )
