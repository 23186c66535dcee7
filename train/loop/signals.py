"""Graceful shutdown on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from edge.runtime.errors import EdgeError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(EdgeError):
    """A signal stopped the training, after a checkpoint was written.

    The exit code is 128 + the number of the signal, as in a shell: 130 or 143.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopRequest:
    """A context manager in which the first SIGINT or SIGTERM is only recorded in `signal`.

    A second signal has its usual effect. Outside the main thread, where Python allows no signal
    handlers, nothing changes.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore_handlers()

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
