"""Interface of the worker pools that answer the shards of a dataset, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.shards import OutputFolder, Shard, ShardFinished
from edge.runtime.errors import EdgeError
from edge.runtime.registry import Entry, Registry

MAX_ATTEMPTS = 3  # for a shard whose worker dies


@dataclass(frozen=True)
class RowsProcessed:
    """Progress within a shard. `count` is negative when a worker died and its shard restarts."""

    count: int


@dataclass(frozen=True)
class ShardFailed:
    """A shard without answers; an earlier output of it stays as it was."""

    name: str
    error: EdgeError


Event = ShardFinished | RowsProcessed | ShardFailed


class Pool(ABC):
    """Workers with one loaded model each."""

    def __init__(self, job: BatchJob, output: OutputFolder, workers: int | None = None) -> None:
        """`workers` None: the number of cores divided by the engine's threads."""
        self.job = job
        self.output = output
        self.workers = workers

    @abstractmethod
    def run(self, shards: Sequence[Shard]) -> Iterator[Event]:
        """Answer the shards in any order. Each ends with `ShardFinished` or `ShardFailed`.

        Closing the iterator early stops the workers.

        Raises:
            EdgeError: No worker can load the artifact.
        """


EXECUTORS: Registry[Pool] = Registry(
    "executor",
    "edge.runtime.batch.pool:Pool",
    {
        "local": Entry("edge.runtime.batch.local_pool:LocalPool", "onnx"),
        "ray": Entry("edge.runtime.batch.ray_pool:RayPool", "ray", ("ray", "pandas", "pyarrow")),
    },
)
