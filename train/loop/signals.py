"""SIGINT and SIGTERM as a wish to end soon, granted where nothing is lost by it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from edge.runtime.errors import EdgeError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(EdgeError):
    """Training was asked to stop and did; exits as a shell reports that signal (130 or 143)."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """While entered, the first SIGINT or SIGTERM is only noted; the second acts at once.

    Elsewhere than in the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
