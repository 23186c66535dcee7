"""Workers of a Ray cluster, by Ray Data: it places them, and starts those anew that die.

Every node must see the artifact, the inputs and the output under the same paths (a shared
filesystem), and have edge-t5 with the artifact's engine installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from edge.runtime.artifact import Artifact
from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.pool import ATTEMPTS, Event, Pool, ShardFailed
from edge.runtime.batch.shards import Done, OutputFolder, Shard
from edge.runtime.engines.base import choose_threads
from edge.runtime.errors import EdgeError, first_line


class RayPool(Pool):
    """Connects to the cluster that RAY_ADDRESS names, else starts Ray on this machine."""

    def answer(self, shards: Sequence[Shard]) -> Iterator[Event]:
        threads = choose_threads(Artifact.open(self.job.artifact), self.job.threads)
        started_here = not ray.is_initialized()
        if started_here:
            _start()
        try:
            cores = int(ray.cluster_resources().get("CPU", 1))
            count = min(self.workers or max(1, cores // threads), len(shards))
            yield from self._answer(shards, count, threads)
        finally:
            if started_here:
                ray.shutdown()

    def _answer(self, shards: Sequence[Shard], count: int, threads: int) -> Iterator[Event]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a shard that ends its worker is reported, not the end
        items = [{"name": shard.name, "source": str(shard.source)} for shard in shards]
        answered = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(self.job, self.output),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=threads,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
        )
        missing = {shard.name for shard in shards}
        try:
            for row in answered.iter_rows():
                missing.discard(row["name"])
                if row["error"]:
                    yield ShardFailed(row["name"], EdgeError(row["error"]))
                else:
                    yield Done(**{key: row[key] for key in Done.__dataclass_fields__})
        except RayError as error:
            raise EdgeError(f"Ray gave up: {first_line(error)}") from error
        for name in sorted(missing):
            told = f"{name}: {ATTEMPTS} workers died over it (Ray's logs say how)"
            yield ShardFailed(name, EdgeError(told))


class _Worker:
    """One actor: loads the artifact once, then gets shards."""

    def __init__(self, job: BatchJob, output: OutputFolder) -> None:
        self._job, self._output = job, output
        self._model, self._problem = None, ""
        try:
            self._model = job.load()
        except EdgeError as error:  # an actor that raises here would be started again for ever
            self._problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        from pathlib import Path

        from edge.runtime.batch.shard_worker import answer_shard

        shard = Shard(str(batch["name"][0]), Path(str(batch["source"][0])))
        done, problem = Done(shard.name, 0, 0, 0, 0), self._problem
        if self._model is not None and not problem:
            try:
                done = answer_shard(self._model, self._job, shard, self._output, lambda rows: None)
            except EdgeError as error:
                problem = str(error)
        return {key: [value] for key, value in {**asdict(done), "error": problem}.items()}


def _start() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        quiet.update(address="local", include_dashboard=False)
    try:
        ray.init(**quiet)
    except (ConnectionError, RayError, RuntimeError) as error:
        raise EdgeError(f"can't reach or start Ray: {first_line(error)}") from error
