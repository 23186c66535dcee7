"""What waits in a queue: one request's texts, and the way back to its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.runtime.errors import EdgeError
from edge.runtime.generation import Generation
from edge.runtime.guardrails import OnLong
from edge.runtime.options import GenerationOptions


@dataclass(frozen=True)
class Served:
    """The answers to a job's texts (or an error in a text's place) and where the time went.

    `queue_ms` is the wait for a worker, `engine_ms` the run, `shared` how many texts that run had.
    """

    answers: list[Generation | EdgeError]
    queue_ms: float
    engine_ms: float
    shared: int


@dataclass(eq=False)
class QueuedRequest:
    """Made on an event loop, answered by a worker thread.

    `given` are the options as the client gave them and `options` what they come to; times are
    those of `time.monotonic`. A streaming job's pieces go to `pieces`, and None after the last.
    """

    texts: Sequence[str]
    fields: Sequence[Mapping[str, str]]
    given: Mapping[str, Any]
    options: GenerationOptions
    on_long: OnLong | None
    deadline: float
    stream: bool = False
    cancelled: bool = False
    queued_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Served] = self._loop.create_future()
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self.future.add_done_callback(lambda _: self.pieces.put_nowait(None))

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def streams_pieces(self) -> bool:
        """Whether pieces can go out before the end; beams and several sequences have none."""
        return self.stream and self.options.num_beams == self.options.num_return_sequences == 1

    def shares_with(self, other: QueuedRequest) -> bool:
        """Whether both may be run together with the same answers as apart, at little cost.

        Sampling draws from one generator for a whole batch, and a text much longer than its
        neighbors would have them padded to its length.
        """
        if self.stream or other.stream or self.options.do_sample:
            return False
        if self.options != other.options or self.on_long != other.on_long:
            return False
        mine, theirs = (max(map(len, job.texts)) + 100 for job in (self, other))
        return mine <= 2 * theirs and theirs <= 2 * mine

    # -- from the worker's thread ----------------------------------------------------------------

    def emit(self, piece: str) -> None:
        self._call(self.pieces.put_nowait, piece)

    def finish(self, served: Served) -> None:
        self._call(self._settle, served, None)

    def fail(self, error: Exception) -> None:
        self._call(self._settle, None, error)

    def _settle(self, served: Served | None, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
            self.future.exception()  # a client that left asks for it no more
        else:
            assert served is not None
            self.future.set_result(served)

    def _call(self, function: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(function, *arguments)
