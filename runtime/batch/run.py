"""A whole data set through a pool of workers; finished shards are left alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.pool import POOLS, Event, ShardFailed
from edge.runtime.batch.shards import Done, OutputFolder, find_shards
from edge.runtime.errors import EdgeError


@dataclass
class Totals:
    """What became of a data set; `skipped` shards were finished by an earlier run."""

    shards: int = 0
    skipped: int = 0
    done: list[Done] = field(default_factory=list)
    failed: list[ShardFailed] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(done.rows for done in self.done)

    @property
    def failed_rows(self) -> int:
        return sum(done.failed for done in self.done)


def answer_data_set(
    job: BatchJob,
    inputs: Path,
    output: Path,
    totals: Totals,
    *,
    engine: str = "local",
    workers: int | None = None,
    force: bool = False,
) -> Generator[Event, None, None]:
    """Answer every shard of a folder or pattern into the folder `output`.

    Yields what happens, for a display; `totals` is kept up to date. Run again with the same
    artifact and options, it goes on with what is not finished.

    Raises:
        EdgeError: some shards could not be answered at all; the others were.
        OutputExistsError: `output` belongs to another run, and `force` is off.
    """
    pool_class = POOLS.load(engine)
    Artifact.open(job.artifact)
    shards = find_shards(inputs)
    folder = OutputFolder(output.resolve())
    folder.check(shards, inputs)
    totals.shards = len(shards)
    with folder.opened(job.identity(), force=force):
        waiting = []
        for shard in shards:
            if done := folder.finished(shard):
                totals.done.append(done)
            else:
                waiting.append(shard)
        totals.skipped = len(totals.done)
        if not waiting:
            return
        for event in pool_class(job, folder, workers).answer(waiting):
            if isinstance(event, Done):
                totals.done.append(event)
            elif isinstance(event, ShardFailed):
                totals.failed.append(event)
            yield event
    if totals.failed:
        first = min(totals.failed, key=lambda failed: failed.name)
        more = f" (and {len(totals.failed) - 1} more shards)" if len(totals.failed) > 1 else ""
        raise EdgeError(f"not answered{more}: {first.error}; the same command tries again")
