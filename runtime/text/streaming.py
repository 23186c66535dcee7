"""An answer that arrives piece by piece: the engine's callbacks turned into an iterator."""

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
    """Iterate over pieces of text; joined they are the answer's text.

    The engine runs in a thread of its own. Leaving the loop early, `close()` or a `with` block
    ends it at its next token. `result` holds the whole answer once the pieces are used up.
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
        except BaseException as error:  # handed to the consumer
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
            # What may still change is held back: half a character, or the start of a stop string.
            end = len(text) if ended else len(text) - self._unsure(text)
            if end > sent:
                yield text[sent:end]
                sent = end
        self._thread.join()
        if self._error is not None:
            raise self._error
        text, _ = cut_at_stop(self._decode(ids), self._stop_strings)
        if len(text) > sent and not self._cancelled.is_set():
            yield text[sent:]

    def _unsure(self, text: str) -> int:
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
        return next(self._pieces)

    @property
    def result(self) -> R:
        """The whole answer.

        Raises:
            UsageError: the pieces are not used up yet.
        """
        if self._thread.is_alive() or self._result is None:
            raise UsageError("the stream has not ended; iterate over it first")
        return self._result

    def cancel(self) -> None:
        """End the generation at its next token, without waiting for that."""
        self._cancelled.set()

    def close(self) -> None:
        """End the generation at its next token, and wait for it."""
        self.cancel()
        self._thread.join()

    def __enter__(self) -> Stream[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._cancelled.set()
