"""Streamed answers: the engine's token callbacks as an iterator over pieces of text."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from edge.runtime.engines.base import TokenCallback
from edge.runtime.errors import UsageError
from edge.runtime.text.incremental import IncrementalDecoder
from edge.runtime.text.stop_strings import cut_at_stop

R = TypeVar("R")


class _Run(Generic[R]):
    """What a stream and its thread share. Neither it nor the thread refers to the stream."""

    def __init__(self) -> None:
        self.result: R | None = None
        self.error: BaseException | None = None
        self.cancelled = threading.Event()
        self.tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def on_token(self, row: int, token: int) -> bool:
        """See `TokenCallback`."""
        self.tokens.put(token)
        return self.cancelled.is_set()

    def work(self, produce: Callable[[TokenCallback], R]) -> None:
        """Target of the thread; None follows the last token."""
        try:
            self.result = produce(self.on_token)
        except BaseException as error:  # raised in the consumer
            self.error = error
        finally:
            self.tokens.put(None)


class Stream(Generic[R]):
    """An iterator over pieces of text, which joined are the answer's text.

    The engine runs in a separate thread. `close()`, the end of a `with` block, or dropping the
    stream ends it at its next token. After the last piece, `result` is the whole answer.

    Args:
        produce: Runs the engine with a token callback and returns the result.
        decode: Token ids to text.
        eos: The id of eos.
        stop_strings: The text ends before the first of them.
    """

    def __init__(
        self,
        produce: Callable[[TokenCallback], R],
        decode: Callable[[Sequence[int]], str],
        *,
        eos: int,
        stop_strings: Sequence[str] = (),
    ) -> None:
        self._run: _Run[R] = _Run()
        self._thread = threading.Thread(
            target=self._run.work, args=(produce,), name="edge-stream", daemon=True
        )
        self._pieces = _pieces(self._run, self._thread, decode, eos, stop_strings)
        weakref.finalize(self, self._run.cancelled.set)
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece of text.

        Raises:
            EdgeError: The engine failed.
        """
        return next(self._pieces)

    @property
    def result(self) -> R:
        """The whole answer, available after the last piece.

        Raises:
            UsageError: The stream has not ended.
        """
        if self._thread.is_alive() or self._run.result is None:
            raise UsageError("the stream has not ended; iterate over it first")
        return self._run.result

    def cancel(self) -> None:
        """End the generation at its next token, without waiting."""
        self._run.cancelled.set()

    def close(self) -> None:
        """End the generation at its next token, and wait until it has ended."""
        self.cancel()
        self._thread.join()

    def __enter__(self) -> Stream[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pieces(
    run: _Run[R],
    thread: threading.Thread,
    decode: Callable[[Sequence[int]], str],
    eos: int,
    stop_strings: Sequence[str],
) -> Iterator[str]:
    decoder = IncrementalDecoder(decode)
    ids: list[int] = []
    sent, waiting, ended = 0, "", False
    while (token := run.tokens.get()) is not None:
        if token == eos:
            continue
        ids.append(token)
        if ended:
            continue
        waiting, ended = cut_at_stop(waiting + decoder.append(token), stop_strings)
        end = len(waiting) if ended else len(waiting) - _held_back(waiting, stop_strings)
        if end:
            piece, waiting = waiting[:end], waiting[end:]
            sent += end
            yield piece
    thread.join()
    if run.error is not None:
        raise run.error
    text, _ = cut_at_stop(decode(ids), stop_strings)
    if len(text) > sent and not run.cancelled.is_set():
        yield text[sent:]


def _held_back(text: str, stop_strings: Sequence[str]) -> int:
    """Length of the text's end that may be the start of a stop string."""
    held = 0
    for stop in stop_strings:
        for length in range(min(len(stop) - 1, len(text)), held, -1):
            if text.endswith(stop[:length]):
                held = length
                break
    return held
