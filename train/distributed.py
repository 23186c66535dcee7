"""Several processes that train one model, started by torchrun or accelerate launch.

Every process computes its share of every batch; the main one (rank 0) alone writes and tells. What
depends on a clock, a signal or a file is decided once and agreed on, so that all take the same
steps. They end together: the reason why one failed is left in the store that the launcher keeps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from edge.runtime.errors import EdgeError, UsageError, first_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# A process that dies closes its connections and is noticed at once; this is for one that hangs.
_LONGEST_WAIT = timedelta(hours=6)
_REASON_WAIT = 10.0  # seconds for what another process has to say about its end
_FAILED = "failed/"


class FollowedError(EdgeError):
    """The main process ended with this message and tells it; the others only end with it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """This process among all that train together; alone, nothing is exchanged."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def lead(self, work: Callable[[], T]) -> T | None:
        """Let the main process do it while the others wait; its result, None on the others.

        Raises:
            EdgeError: the main process's own; on the others a FollowedError that says the same.
        """
        if self.count == 1:
            return work()
        result, failure, raised = None, None, None
        if self.is_main:
            try:
                result = work()
            except EdgeError as error:
                failure, raised = (str(error), error.exit_code), error
        failure = self._from_main(failure)
        if raised is not None:
            raise raised
        if failure is not None:
            raise FollowedError(*failure)
        return result

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` gives on the main process, on all. Raises as `lead`."""
        result: Any = self.lead(work)
        return self._from_main(result)

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank, on all."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def most(self, *numbers: float) -> list[float]:
        """The largest of each number over all processes."""
        return self._reduced("MAX", numbers)

    def total(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        return self._reduced("SUM", numbers)

    def tensors_of_main(
        self, tensors: Mapping[str, torch.Tensor] | None
    ) -> Mapping[str, torch.Tensor]:
        """The main process's tensors (on the CPU), on all; the others give None."""
        if self.count == 1:
            assert tensors is not None
            return tensors
        import torch
        import torch.distributed as dist

        shapes = [(name, tuple(t.shape), t.dtype) for name, t in (tensors or {}).items()]
        got: dict[str, torch.Tensor] = {}
        for name, shape, dtype in self._from_main(shapes):
            got[name] = torch.empty(shape, dtype=dtype) if tensors is None else tensors[name]
            dist.broadcast(got[name], 0)
        return got

    def _from_main(self, value: T) -> T:
        if self.count == 1:
            return value
        import torch.distributed as dist

        values: list[Any] = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def _reduced(self, how: str, numbers: tuple[float, ...]) -> list[float]:
        if self.count == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, getattr(dist.ReduceOp, how))
        return tensor.tolist()


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the other processes that the launcher started; without a launcher there are none.

    Raises:
        EdgeError: what was raised within; or a lost connection, told as what another process
            failed of. On all but one process a FollowedError, to be left unsaid.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    import torch.distributed as dist

    store, rank = _meet(count)
    # Precision is decided here, not by a launcher that may ask for fp16.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    try:
        yield Processes(rank, count)
    except Exception as error:
        end = _common_end(error, store, rank, count)
        raise end from (None if end is error else error)
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


def _meet(count: int) -> tuple[Any, int]:
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        # gloo for tensors on the CPU, NCCL for those on GPUs where there are any.
        dist.init_process_group(store=store, rank=rank, world_size=count, timeout=_LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the other processes can't be met"
            f" ({first_line(error)}); start the command with torchrun"
        ) from error
    return dist.PrefixStore("edge", store), rank


def _common_end(error: Exception, store: Any, rank: int, count: int) -> Exception:
    """What this process raises: its own reason, another's, or one that the main process tells."""
    import torch.distributed as dist

    if isinstance(error, FollowedError):
        return error
    others = [number for number in range(count) if number != rank]
    if not _is_lost_connection(error):
        message = str(error) or type(error).__name__
        _put(store, rank, message, getattr(error, "exit_code", 1))
        if rank == 0:
            return error
        # Only a closed connection wakes the others, who wait for this process's part.
        with suppress(RuntimeError):
            dist.destroy_process_group()
        heard = _reason_of(store, [0])
        if heard is not None:
            return FollowedError(heard[1], heard[2])
        return _told(f"process {rank}: {message}", getattr(error, "exit_code", 1))
    found = _reason_of(store, others)
    if rank == 0:
        message, code = "another process of this run died; what is saved can be resumed", 1
        if found is not None:
            message, code = f"process {found[0]}: {found[1]}", found[2]
        _put(store, rank, message, code)
        return _told(message, code)
    main = found if found is not None and found[0] == 0 else _reason_of(store, [0])
    if main is not None:
        return FollowedError(main[1], main[2])
    return _told(f"process {rank}: the main process of this run died", 1)


def _told(message: str, exit_code: int) -> EdgeError:
    error = EdgeError(message)
    error.exit_code = exit_code
    return error


def _is_lost_connection(error: Exception) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _put(store: Any, rank: int, message: str, exit_code: int) -> None:
    with suppress(RuntimeError):
        store.set(f"{_FAILED}{rank}", f"{exit_code} {message}")


def _reason_of(store: Any, ranks: list[int]) -> tuple[int, str, int] | None:
    """Which of these processes failed, why, and its exit code; None if none says so in time."""
    until = time.monotonic() + _REASON_WAIT
    with suppress(RuntimeError):
        while time.monotonic() < until:
            for rank in ranks:
                if store.check([f"{_FAILED}{rank}"]):
                    code, _, message = store.get(f"{_FAILED}{rank}").decode().partition(" ")
                    return rank, message, int(code)
            time.sleep(0.1)
    return None
