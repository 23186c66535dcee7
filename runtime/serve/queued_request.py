"""A request in the queue, and the way its answers get back to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.runtime.errors import EdgeError
from edge.runtime.generation import Generation
from edge.runtime.guardrails import OnLong
from edge.runtime.options import GenerationOptions


@dataclass(frozen=True)
class RequestResult:
    """Answers to a request's texts.

    Attributes:
        answers: An answer or an error per text.
        queue_ms: Milliseconds in the queue.
        engine_ms: Milliseconds of the engine's run.
        batch_texts: Texts in that run, those of other requests included.
    """

    answers: list[Generation | EdgeError]
    queue_ms: float
    engine_ms: float
    batch_texts: int


@dataclass(eq=False)
class QueuedRequest:
    """Texts of one request. Created on an event loop, answered by a worker thread.

    Args:
        texts: The inputs.
        fields: Values for the prompt's fields, per text.
        generate_kwargs: Generation options as the client gave them.
        options: The complete options that these result in.
        on_long: What to do with a text over the limit; None: as the guardrails say.
        timeout: Seconds from the arrival until the answer is due.
        stream: Send the answer's pieces to `pieces` as they come, and None after the last.
        cancelled: The client has left or the deadline has passed.
        queued_at: Time of arrival, as of `time.monotonic`.
        deadline: Time by which the answer is due, as of `time.monotonic`.
    """

    texts: Sequence[str]
    fields: Sequence[Mapping[str, str]]
    generate_kwargs: Mapping[str, Any]
    options: GenerationOptions
    on_long: OnLong | None
    timeout: float
    stream: bool = False
    cancelled: bool = False
    queued_at: float = field(default_factory=time.monotonic)
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = self.queued_at + self.timeout
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[RequestResult] = self._loop.create_future()
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self.future.add_done_callback(lambda _: self.pieces.put_nowait(None))

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    @property
    def sequences(self) -> int:
        """Sequences that the engine computes: every text has its beams or its samples."""
        return len(self.texts) * max(self.options.num_beams, self.options.num_return_sequences)

    @property
    def streams_pieces(self) -> bool:
        """Whether text can be sent before the end: not with beams or several sequences."""
        return self.stream and self.options.num_beams == self.options.num_return_sequences == 1

    def can_share_batch(self, other: QueuedRequest) -> bool:
        """Whether both requests can run in one batch without changing or slowing the answers.

        Sampling uses one random generator per batch, so it is never shared. A text much longer
        than the others would pad them to its length.
        """
        if self.stream or other.stream or self.options.do_sample:
            return False
        if self.options != other.options or self.on_long != other.on_long:
            return False
        mine, theirs = (max(map(len, request.texts)) + 100 for request in (self, other))
        return mine <= 2 * theirs and theirs <= 2 * mine

    # -- called by the worker's thread -----------------------------------------------------------

    def emit(self, piece: str) -> None:
        """Send a piece of the answer to the event loop."""
        self._call(self.pieces.put_nowait, piece)

    def set_result(self, result: RequestResult) -> None:
        """Complete the request."""
        self._call(self._resolve, result, None)

    def set_exception(self, error: Exception) -> None:
        """Fail the request."""
        self._call(self._resolve, None, error)

    def _resolve(self, result: RequestResult | None, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
            self.future.exception()  # marks it as retrieved: the client may have left
        else:
            assert result is not None
            self.future.set_result(result)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(function, *arguments)
