"""Who may be inside an engine, and when it may be freed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from edge.runtime.errors import UsageError


class CallGuard:
    """Lets calls in (one at a time where the engine needs that) and lets closing wait for them."""

    def __init__(self, *, exclusive: bool) -> None:
        self._exclusive = exclusive
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Be inside the engine.

        Raises:
            UsageError: the model is closed.
        """
        with self._condition:
            while self._exclusive and self._inside and not self._closed:
                self._condition.wait()
            if self._closed:
                raise UsageError("the model is closed; load the artifact again")
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    def close(self) -> bool:
        """Refuse further calls and wait for those inside; True for the first caller only."""
        with self._condition:
            if self._closed:
                return False
            self._closed = True
            self._condition.notify_all()
            while self._inside:
                self._condition.wait()
            return True
