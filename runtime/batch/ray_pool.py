"""Pool of actors on a Ray cluster, scheduled and restarted by Ray Data.

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
from edge.runtime.batch.pool import MAX_ATTEMPTS, Event, Pool, ShardFailed
from edge.runtime.batch.shards import OutputFolder, Shard, ShardFinished
from edge.runtime.engines.base import choose_threads
from edge.runtime.errors import EdgeError, first_line


class RayPool(Pool):
    """Actors on the cluster at RAY_ADDRESS. Without that variable, starts Ray on this machine."""

    def run(self, shards: Sequence[Shard]) -> Iterator[Event]:
        """See `Pool.run`.

        Raises:
            EdgeError: Ray can't be reached or started, or it stopped the run.
        """
        threads = choose_threads(Artifact.open(self.job.artifact), self.job.threads)
        started_here = not ray.is_initialized()
        if started_here:
            _init_ray()
        try:
            cores = int(ray.cluster_resources().get("CPU", 1))
            count = min(self.workers or max(1, cores // threads), len(shards))
            yield from self._map_shards(shards, count, threads)
        finally:
            if started_here:
                ray.shutdown()

    def _map_shards(self, shards: Sequence[Shard], count: int, threads: int) -> Iterator[Event]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # report a shard that kills its worker; don't stop the run
        items = [{"name": shard.name, "source": str(shard.source)} for shard in shards]
        results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(self.job, self.output),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=threads,
            max_restarts=-1,
            max_task_retries=MAX_ATTEMPTS - 1,
        )
        missing = {shard.name for shard in shards}
        try:
            for row in results.iter_rows():
                missing.discard(row["name"])
                if row["error"]:
                    yield ShardFailed(row["name"], EdgeError(row["error"]))
                else:
                    yield ShardFinished(
                        **{key: row[key] for key in ShardFinished.__dataclass_fields__}
                    )
        except RayError as error:
            raise EdgeError(f"Ray stopped the run: {first_line(error)}") from error
        for name in sorted(missing):
            message = f"{name}: {MAX_ATTEMPTS} workers died on it. See Ray's logs"
            yield ShardFailed(name, EdgeError(message))


class _Actor:
    """Loads the artifact once, then answers one shard per call."""

    def __init__(self, job: BatchJob, output: OutputFolder) -> None:
        self._job, self._output = job, output
        self._model, self._problem = None, ""
        try:
            self._model = job.load()
        except EdgeError as error:  # Ray would restart an actor that raises here forever
            self._problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        from pathlib import Path

        from edge.runtime.batch.shard_worker import try_shard

        shard = Shard(str(batch["name"][0]), Path(str(batch["source"][0])))
        finished, problem = ShardFinished(shard.name, 0, 0, 0, 0), self._problem
        if self._model is not None and not problem:
            result = try_shard(self._model, self._job, shard, self._output, lambda rows: None)
            if isinstance(result, ShardFailed):
                problem = str(result.error)
            else:
                finished = result
        return {key: [value] for key, value in {**asdict(finished), "error": problem}.items()}


def _init_ray() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    settings: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        settings.update(address="local", include_dashboard=False)
    try:
        ray.init(**settings)
    except (ConnectionError, RayError, RuntimeError) as error:
        raise EdgeError(f"can't connect to Ray or start it: {first_line(error)}") from error
