"""Processes of this machine. A worker that dies costs its shard's work, not the run."""

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
from edge.runtime.batch.pool import ATTEMPTS, Event, Pool, Rows, ShardFailed
from edge.runtime.batch.shards import Done, OutputFolder, Shard
from edge.runtime.engines.base import choose_threads
from edge.runtime.errors import EdgeError
from edge.runtime.platform.cpu import usable_cores

_END_SECONDS = 5.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    shard: Shard | None = None  # what it is at work on
    rows: int = 0  # how many of that shard it has reported


class LocalPool(Pool):
    """One process per worker, started afresh rather than forked: engines have threads."""

    def answer(self, shards: Sequence[Shard]) -> Iterator[Event]:
        threads = choose_threads(Artifact.open(self.job.artifact), self.job.threads)
        count = self.workers or max(1, usable_cores() // threads)
        waiting = deque(shards)
        deaths: Counter[str] = Counter()
        workers: list[_Worker] = []
        try:
            workers += [self._start() for _ in range(min(count, len(waiting)))]
            while workers:
                ready = wait([worker.connection for worker in workers])
                for worker in [worker for worker in workers if worker.connection in ready]:
                    try:
                        message = worker.connection.recv()
                    except (EOFError, OSError):
                        workers.remove(worker)
                        yield from self._after_death(worker, waiting, deaths)
                        if waiting:
                            workers.append(self._start())
                        continue
                    if isinstance(message, EdgeError):  # it can't load the artifact
                        raise message
                    if isinstance(message, Rows):
                        worker.rows += message.count
                        yield message
                        continue
                    if isinstance(message, Done | ShardFailed):
                        yield message
                    if not _assign(worker, waiting):
                        workers.remove(worker)
                        _end(worker)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                _end(worker)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self.job, self.output), name="edge-run", daemon=True
        )
        process.start()
        theirs.close()  # so that the worker's end is the only one, and its death is seen
        return _Worker(process, ours)

    def _after_death(
        self, worker: _Worker, waiting: deque[Shard], deaths: Counter[str]
    ) -> Iterator[Event]:
        _end(worker)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = "; the machine may be short of memory: try fewer --workers" if code == -9 else ""
        key = worker.shard.name if worker.shard else ""
        deaths[key] += 1
        if worker.shard is None:
            if deaths[key] >= ATTEMPTS:
                raise EdgeError(f"workers die while they load the artifact ({how}){hint}")
            return
        if worker.rows:
            yield Rows(-worker.rows)
        if deaths[key] >= ATTEMPTS:
            error = EdgeError(f"{key}: {ATTEMPTS} workers died over it ({how}){hint}")
            yield ShardFailed(key, error)
        else:
            waiting.appendleft(worker.shard)


def _assign(worker: _Worker, waiting: deque[Shard]) -> bool:
    worker.shard, worker.rows = None, 0
    # A worker that died just now is noticed at its next message, with the shard it was given.
    with contextlib.suppress(OSError):
        worker.connection.send(waiting[0] if waiting else None)
    if waiting:
        worker.shard = waiting.popleft()
    return worker.shard is not None


def _end(worker: _Worker) -> None:
    worker.process.join(_END_SECONDS)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


def _work(connection: Connection, job: BatchJob, output: OutputFolder) -> None:
    """A worker's life: load, say so, then one shard after the other until None comes."""
    from edge.runtime.batch.shard_worker import answer_shard

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # half-written files are removed
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # no parent any more
        try:
            model = job.load()
        except EdgeError as error:
            connection.send(error)
            return
        connection.send("ready")
        while (shard := connection.recv()) is not None:
            try:
                message: Event = answer_shard(
                    model, job, shard, output, lambda rows: connection.send(Rows(rows))
                )
            except EdgeError as error:
                message = ShardFailed(shard.name, error)
            connection.send(message)
