"""Data-parallel training in several processes, started by torchrun or accelerate launch.

Every process computes its part of every batch; only rank 0 writes files and reports events.
Decisions that depend on a clock, a signal or a file are made once and broadcast, so that all
processes take the same steps. They also end together: a failed process leaves its reason in the
launcher's store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from edge.runtime.errors import EdgeError, UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# For a process that hangs: one that dies closes its connections and is noticed at once.
_COLLECTIVE_TIMEOUT = timedelta(hours=6)
_REASON_TIMEOUT = 10.0  # seconds to wait for another process's reason
_FAILED = "failed/"


class MainProcessError(EdgeError):
    """The failure of the main process, raised in the others.

    The main process reports it. The others only exit with the same `exit_code`.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """This process among the `world_size` that train together; a single one never communicates."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files and reports the events."""
        return self.rank == 0

    def on_main_process(self, work: Callable[[], T]) -> T | None:
        """Run `work` in the main process while the others wait.

        Returns:
            Its result in the main process, None in the others.

        Raises:
            EdgeError: Raised by `work`; in the other processes, a MainProcessError.
        """
        if self.world_size == 1:
            return work()
        result: T | None = None
        failure: tuple[str, int] | None = None
        raised: EdgeError | None = None
        if self.is_main:
            try:
                result = work()
            except EdgeError as error:
                failure, raised = (str(error), error.exit_code), error
        failure = self._broadcast_object(failure)
        if raised is not None:
            raise raised
        if failure is not None:
            raise MainProcessError(*failure)
        return result

    def broadcast(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process and return its result (pickled) in all processes.

        Raises:
            EdgeError: As `on_main_process`.
        """
        result: Any = self.on_main_process(work)
        received: T = self._broadcast_object(result)
        return received

    def broadcast_tensors(
        self, tensors: Mapping[str, torch.Tensor] | None
    ) -> Mapping[str, torch.Tensor]:
        """The main process's CPU tensors, in all processes; the others pass None."""
        if self.world_size == 1:
            return tensors or {}
        import torch
        import torch.distributed as dist

        shapes = [(name, tuple(t.shape), t.dtype) for name, t in (tensors or {}).items()]
        received: dict[str, torch.Tensor] = {}
        for name, shape, dtype in self._broadcast_object(shapes):
            received[name] = torch.empty(shape, dtype=dtype) if tensors is None else tensors[name]
            dist.broadcast(received[name], 0)
        return received

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank, in all processes."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_reduce_max(self, *numbers: float) -> list[float]:
        """The maximum of each number over all processes."""
        return self._all_reduce("MAX", numbers)

    def all_reduce_sum(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return self._all_reduce("SUM", numbers)

    def _broadcast_object(self, value: T) -> T:
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        values: list[Any] = [value]
        dist.broadcast_object_list(values, 0)
        received: T = values[0]
        return received

    def _all_reduce(self, operation: str, numbers: tuple[float, ...]) -> list[float]:
        if self.world_size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, getattr(dist.ReduceOp, operation))
        reduced: list[float] = tensor.tolist()
        return reduced


SINGLE_PROCESS = Processes()


@contextmanager
def process_group() -> Iterator[Processes]:
    """Join the processes that the launcher started; without a launcher there is only this one.

    Raises:
        EdgeError: Raised inside the `with` block, or the connection to a process was lost; the
            message then gives that process's reason. In all processes but one it is a
            MainProcessError, which is not to be reported.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield SINGLE_PROCESS
        return
    import torch.distributed as dist

    store, rank = _init_process_group(count)
    # `edge` chooses the precision, not a launcher that may ask for fp16.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    try:
        yield Processes(rank, count)
    except Exception as error:
        agreed = _agreed_error(error, store, rank, count)
        raise agreed from (None if agreed is error else error)
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


def _init_process_group(count: int) -> tuple[Any, int]:
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        # gloo for CPU tensors, NCCL for GPU tensors.
        dist.init_process_group(
            store=store, rank=rank, world_size=count, timeout=_COLLECTIVE_TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the other processes can't be reached"
            f" ({str(error).splitlines()[0]}); start the command with torchrun"
        ) from error
    return dist.PrefixStore("edge", store), rank


def _agreed_error(error: Exception, store: Any, rank: int, count: int) -> Exception:
    """The exception that ends this process: one process reports, the others raise silently."""
    import torch.distributed as dist

    if isinstance(error, MainProcessError):
        return error
    others = [number for number in range(count) if number != rank]
    if not _is_lost_connection(error):
        message = str(error) or type(error).__name__
        _put_reason(store, rank, message, getattr(error, "exit_code", 1))
        if rank == 0:
            return error
        # Only a closed connection wakes the processes that wait for this one.
        with suppress(RuntimeError):
            dist.destroy_process_group()
        reported = _reason_of(store, [0])
        if reported is not None:
            return MainProcessError(reported[1], reported[2])
        return _edge_error(f"process {rank}: {message}", getattr(error, "exit_code", 1))
    found = _reason_of(store, others)
    if rank == 0:
        message, code = (
            "another process of this run died; go on from its last checkpoint with --resume",
            1,
        )
        if found is not None:
            message, code = f"process {found[0]}: {found[1]}", found[2]
        _put_reason(store, rank, message, code)
        return _edge_error(message, code)
    main = found if found is not None and found[0] == 0 else _reason_of(store, [0])
    if main is not None:
        return MainProcessError(main[1], main[2])
    return _edge_error(f"process {rank}: the main process of this run died", 1)


def _edge_error(message: str, exit_code: int) -> EdgeError:
    error = EdgeError(message)
    error.exit_code = exit_code
    return error


def _is_lost_connection(error: Exception) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _put_reason(store: Any, rank: int, message: str, exit_code: int) -> None:
    with suppress(RuntimeError):
        store.set(f"{_FAILED}{rank}", f"{exit_code} {message}")


def _reason_of(store: Any, ranks: list[int]) -> tuple[int, str, int] | None:
    """Rank, reason and exit code of one of `ranks` that failed; None after the timeout."""
    deadline = time.monotonic() + _REASON_TIMEOUT
    with suppress(RuntimeError):
        while time.monotonic() < deadline:
            for rank in ranks:
                if store.check([f"{_FAILED}{rank}"]):
                    code, _, message = store.get(f"{_FAILED}{rank}").decode().partition(" ")
                    return rank, message, int(code)
            time.sleep(0.1)
    return None
