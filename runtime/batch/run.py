"""Batch run over a dataset of shards. Finished shards are skipped."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.pool import EXECUTORS, Event, ShardFailed
from edge.runtime.batch.shards import OutputFolder, ShardFinished, find_shards
from edge.runtime.errors import EdgeError


@dataclass
class BatchTotals:
    """Counts over a dataset, updated during the run.

    Attributes:
        shards: Shards of the dataset.
        skipped: Shards that an earlier run finished; they are in `finished` too.
        finished: Shards with answers.
        failed: Shards without answers.
    """

    shards: int = 0
    skipped: int = 0
    finished: list[ShardFinished] = field(default_factory=list)
    failed: list[ShardFailed] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of all finished shards."""
        return sum(shard.rows for shard in self.finished)

    @property
    def failed_rows(self) -> int:
        """Rows of finished shards that have no answer."""
        return sum(shard.failed for shard in self.finished)


def run_dataset(
    job: BatchJob,
    inputs: Path,
    output: Path,
    totals: BatchTotals,
    *,
    executor: str = "local",
    workers: int | None = None,
    force: bool = False,
) -> Generator[Event, None, None]:
    """Answer every shard of a folder or pattern into the folder `output`.

    The same call after a crash continues with the unfinished shards.

    Args:
        job: Artifact and options.
        inputs: A folder of .jsonl and .parquet files, or a glob pattern of them.
        output: Folder of the answers, one file per shard.
        totals: Updated with each event.
        executor: "local" for processes of this machine, "ray" for a Ray cluster.
        workers: Number of loaded models. None: as many as the cores allow.
        force: Delete the answers of a different run in `output`.

    Yields:
        Progress events, for a display.

    Raises:
        EdgeError: Some shards have no answers; the others are complete.
        OutputExistsError: `output` belongs to another run, and `force` is off.
    """
    pool_class = EXECUTORS.load(executor)
    Artifact.open(job.artifact)
    shards = find_shards(inputs)
    folder = OutputFolder(output.resolve())
    folder.check(shards, inputs)
    totals.shards = len(shards)
    with folder.locked(job.fingerprint(), force=force):
        pending = []
        for shard in shards:
            if record := folder.load_record(shard):
                totals.finished.append(record)
            else:
                pending.append(shard)
        totals.skipped = len(totals.finished)
        if not pending:
            return
        for event in pool_class(job, folder, workers).run(pending):
            if isinstance(event, ShardFinished):
                totals.finished.append(event)
            elif isinstance(event, ShardFailed):
                totals.failed.append(event)
            yield event
    if totals.failed:
        first = min(totals.failed, key=lambda failed: failed.name)
        more = f" (and {len(totals.failed) - 1} more shards)" if len(totals.failed) > 1 else ""
        raise EdgeError(f"no answers{more}: {first.error}. Repeat the command to try again")
