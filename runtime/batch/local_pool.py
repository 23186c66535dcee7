"""Pool of worker processes on this machine. A worker that dies costs only its current shard."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from edge.runtime.artifact import Artifact
from edge.runtime.batch.job import BatchJob
from edge.runtime.batch.pool import MAX_ATTEMPTS, Event, Pool, RowsProcessed, ShardFailed
from edge.runtime.batch.shards import OutputFolder, Shard, ShardFinished
from edge.runtime.engines.base import choose_threads
from edge.runtime.errors import EdgeError
from edge.runtime.platform.cpu import usable_cores

_JOIN_TIMEOUT_S = 5.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    shard: Shard | None = None  # the one it works on
    rows: int = 0  # rows of that shard reported so far


class LocalPool(Pool):
    """One process per worker, spawned because engines with threads don't survive a fork."""

    def run(self, shards: Sequence[Shard]) -> Iterator[Event]:
        """See `Pool.run`."""
        threads = choose_threads(Artifact.open(self.job.artifact), self.job.threads)
        count = self.workers or max(1, usable_cores() // threads)
        pending = deque(shards)
        deaths: Counter[str] = Counter()
        workers: list[_Worker] = []
        try:
            workers += [self._start_worker() for _ in range(min(count, len(pending)))]
            while workers:
                ready = wait([worker.connection for worker in workers])
                for worker in [worker for worker in workers if worker.connection in ready]:
                    try:
                        message = worker.connection.recv()
                    except (EOFError, OSError):
                        workers.remove(worker)
                        yield from self._handle_death(worker, pending, deaths)
                        if pending:
                            workers.append(self._start_worker())
                        continue
                    if isinstance(message, EdgeError):  # it can't load the artifact
                        raise message
                    if isinstance(message, RowsProcessed):
                        worker.rows += message.count
                        yield message
                        continue
                    if isinstance(message, ShardFinished | ShardFailed):
                        yield message
                    if not _assign_next(worker, pending):
                        workers.remove(worker)
                        _stop(worker)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                _stop(worker)

    def _start_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        parent_end, child_end = context.Pipe()
        process = context.Process(
            target=_worker_main,
            args=(child_end, self.job, self.output),
            name="edge-run",
            daemon=True,
        )
        process.start()
        child_end.close()  # with the only copy in the worker, its death closes the pipe
        return _Worker(process, parent_end)

    def _handle_death(
        self, worker: _Worker, pending: deque[Shard], deaths: Counter[str]
    ) -> Iterator[Event]:
        """Put the shard of a dead worker back, or give it up after `MAX_ATTEMPTS`."""
        _stop(worker)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = ". The machine may be out of memory: use fewer --workers" if code == -9 else ""
        key = worker.shard.name if worker.shard else ""
        deaths[key] += 1
        if worker.shard is None:
            if deaths[key] >= MAX_ATTEMPTS:
                raise EdgeError(f"workers died while loading the artifact ({how}){hint}")
            return
        if worker.rows:
            yield RowsProcessed(-worker.rows)
        if deaths[key] >= MAX_ATTEMPTS:
            error = EdgeError(f"{key}: {MAX_ATTEMPTS} workers died on it ({how}){hint}")
            yield ShardFailed(key, error)
        else:
            pending.appendleft(worker.shard)


def _assign_next(worker: _Worker, pending: deque[Shard]) -> bool:
    """Send the next shard, or None to stop the worker; returns whether there was a shard."""
    worker.shard, worker.rows = None, 0
    # If the worker has just died, the next recv() reports it, with the shard assigned here.
    with contextlib.suppress(OSError):
        worker.connection.send(pending[0] if pending else None)
    if pending:
        worker.shard = pending.popleft()
    return worker.shard is not None


def _stop(worker: _Worker) -> None:
    worker.process.join(_JOIN_TIMEOUT_S)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


def _worker_main(connection: Connection, job: BatchJob, output: OutputFolder) -> None:
    """Load the model, report it, then answer shards until None arrives."""
    from edge.runtime.batch.shard_worker import try_shard

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so partial files are deleted
    # The suppressed errors mean that the parent has ended.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            model = job.load()
        except EdgeError as error:
            connection.send(error)
            return
        connection.send("ready")
        while (shard := connection.recv()) is not None:
            message: Event = try_shard(
                model, job, shard, output, lambda rows: connection.send(RowsProcessed(rows))
            )
            connection.send(message)
