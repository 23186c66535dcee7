"""Workers that share out the shards of a data set: this machine's processes, or a Ray cluster's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.shards import Done, OutputFolder, Shard
from edge.runtime.errors import EdgeError
from edge.runtime.registry import Entry, Registry

ATTEMPTS = 3  # of a shard whose worker dies


@dataclass(frozen=True)
class Rows:
    """So many more rows are dealt with; negative where a worker died and its shard starts over."""

    count: int


@dataclass(frozen=True)
class ShardFailed:
    """A shard that could not be answered; its place in the output stays as it was."""

    name: str
    error: EdgeError


Event = Done | Rows | ShardFailed


class Pool(ABC):
    """Some workers, each with one loaded model."""

    def __init__(self, job: BatchJob, output: OutputFolder, workers: int | None = None) -> None:
        """`workers` None takes as many as there are cores for."""
        self.job = job
        self.output = output
        self.workers = workers

    @abstractmethod
    def answer(self, shards: Sequence[Shard]) -> Iterator[Event]:
        """Answer the shards in any order; each ends as `Done` or as `ShardFailed`.

        Leaving the iteration early ends the workers.

        Raises:
            EdgeError: no worker could load the artifact.
        """


POOLS: Registry[Pool] = Registry(
    "engine",
    "edge.runtime.batch.pool:Pool",
    {
        "local": Entry("edge.runtime.batch.local_pool:LocalPool", "onnx"),
        "ray": Entry("edge.runtime.batch.ray_pool:RayPool", "ray", ("ray", "pandas", "pyarrow")),
    },
)
