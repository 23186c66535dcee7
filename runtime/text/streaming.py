"""Streamed answers: the engine's token callbacks as an iterator over pieces of text."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from edge.runtime.engines.base import TokenCallback
from edge.runtime.errors import UsageError
from edge.runtime.text.stop_strings import cut_at_stop

R = TypeVar("R")


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
        self._decode = decode
        self._eos = eos
        self._stop_strings = stop_strings
        self._result: R | None = None
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._pieces = self._iterate()
        self._thread = threading.Thread(
            target=self._work, args=(produce,), name="edge-stream", daemon=True
        )
        self._thread.start()

    def _work(self, produce: Callable[[TokenCallback], R]) -> None:
        try:
            self._result = produce(self._on_token)
        except BaseException as error:  # raised in the consumer
            self._error = error
        finally:
            self._tokens.put(None)

    def _on_token(self, row: int, token: int) -> bool:
        self._tokens.put(token)
        return self._cancelled.is_set()

    def _iterate(self) -> Iterator[str]:
        ids: list[int] = []
        sent = 0
        while (token := self._tokens.get()) is not None:
            if token == self._eos:
                continue
            ids.append(token)
            text, ended = cut_at_stop(self._decode(ids), self._stop_strings)
            # Hold back what may still change: half a character, or the start of a stop string.
            end = len(text) if ended else len(text) - self._unstable_length(text)
            if end > sent:
                yield text[sent:end]
                sent = end
        self._thread.join()
        if self._error is not None:
            raise self._error
        text, _ = cut_at_stop(self._decode(ids), self._stop_strings)
        if len(text) > sent and not self._cancelled.is_set():
            yield text[sent:]

    def _unstable_length(self, text: str) -> int:
        held = len(text) - len(text.rstrip("\ufffd"))
        for stop in self._stop_strings:
            for length in range(min(len(stop) - 1, len(text)), held, -1):
                if text.endswith(stop[:length]):
                    held = length
                    break
        return held

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
        if self._thread.is_alive() or self._result is None:
            raise UsageError("the stream has not ended; iterate over it first")
        return self._result

    def cancel(self) -> None:
        """End the generation at its next token, without waiting."""
        self._cancelled.set()

    def close(self) -> None:
        """End the generation at its next token, and wait until it has ended."""
        self.cancel()
        self._thread.join()

    def __enter__(self) -> Stream[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._cancelled.set()
