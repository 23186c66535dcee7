"""Who may be inside an engine, and when it may be freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Iterator

from edge.runtime.errors import UsageError

# Guards of this process, so that a fork can find them.
_GUARDS: weakref.WeakSet[EngineLock] = weakref.WeakSet()


class EngineLock:
    """Lets calls in (one at a time where the engine needs that) and lets closing wait for them.

    Engines do not survive a fork: their threads exist in the parent only, and a call or even the
    engine's end would wait for them for ever. In a forked child, calls are therefore refused and
    what is `owned` is never freed (its memory is shared with the parent anyway).
    """

    def __init__(self, *, exclusive: bool, owned: object = None) -> None:
        self._exclusive = exclusive
        self._owned = owned
        self._process = os.getpid()
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False
        _GUARDS.add(self)

    @property
    def closed(self) -> bool:
        return self._closed

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Be inside the engine.

        Raises:
            UsageError: the model is closed, or was loaded before this process was forked.
        """
        # Before the lock: a thread that the fork left behind may hold it.
        if os.getpid() != self._process:
            raise UsageError(
                "the model was loaded before this process was forked, which engines do not survive;"
                " load it in each process (multiprocessing: start method 'spawn' or 'forkserver',"
                " or load in the worker)"
            )
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
        """Refuse further calls and wait for those inside; True for the first caller only, and
        only in the process that may free the engine."""
        if os.getpid() != self._process:
            self._closed = True
            return False
        with self._condition:
            if self._closed:
                return False
            self._closed = True
            self._condition.notify_all()
            while self._inside:
                self._condition.wait()
            return True

    def _leak(self) -> None:
        """Keep what is owned alive for good."""
        if self._owned is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._owned))


def _after_fork_in_child() -> None:
    for guard in list(_GUARDS):
        guard._leak()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
