"""The lock around an engine's calls, safe on close and after a fork."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Iterator

from edge.runtime.errors import UsageError

# All locks of this process, for the fork handler.
_LOCKS: weakref.WeakSet[EngineLock] = weakref.WeakSet()


class EngineLock:
    """Admits calls, one at a time if needed, and makes closing wait for running calls.

    Engines do not survive a fork: their threads exist only in the parent, and a call or even the
    destructor would wait for them forever. In a forked child, calls raise an error and `owned` is
    never freed.

    Args:
        exclusive: Whether only one call may run at a time.
        owned: The engine.
    """

    def __init__(self, *, exclusive: bool, owned: object = None) -> None:
        self._exclusive = exclusive
        self._owned = owned
        self._process = os.getpid()
        self._condition = threading.Condition()
        self._running = 0
        self._closed = False
        _LOCKS.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A context in which the engine may be called.

        Raises:
            UsageError: The model is closed, or was loaded before this process was forked.
        """
        # Before taking the lock: a thread of the parent may hold it.
        if os.getpid() != self._process:
            raise UsageError(
                "the model was loaded before this process was forked, and engines do not survive a"
                " fork; load it in each process, or use multiprocessing with the start method"
                " 'spawn' or 'forkserver'"
            )
        with self._condition:
            while self._exclusive and self._running and not self._closed:
                self._condition.wait()
            if self._closed:
                raise UsageError("the model is closed; load the artifact again")
            self._running += 1
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def close(self) -> bool:
        """Reject further calls and wait for running ones.

        Returns:
            True for the first caller, who must free the engine; always False after a fork.
        """
        if os.getpid() != self._process:
            self._closed = True
            return False
        with self._condition:
            if self._closed:
                return False
            self._closed = True
            self._condition.notify_all()
            while self._running:
                self._condition.wait()
            return True

    def _leak(self) -> None:
        """Keep `owned` alive forever."""
        if self._owned is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._owned))


def _after_fork_in_child() -> None:
    for lock in list(_LOCKS):
        lock._leak()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
