"""Estimate of the seconds per sequence, and a clock that leaves out suspended time."""

from __future__ import annotations

import threading
import time

# Weight of the latest run in the moving average, and the most by which a single run may exceed it:
# one run changes the average by at most 1.9 times.
_EMA_WEIGHT = 0.1
_MAX_OUTLIER = 10.0
# Without runs, the average returns half of the way to the baseline in this time.
_HALF_LIFE_S = 10.0
_TICK_S = 0.25
# A longer gap between ticks means that the process was suspended, not only slow.
_MAX_GAP_S = 1.25


class RunTimeEstimate:
    """Moving average of the seconds per sequence that returns to a baseline without new runs.

    Times are seconds; `now` is a time of any monotonic clock.
    """

    def __init__(self) -> None:
        self._baseline = 0.0
        self._average = 0.0
        self._updated = 0.0

    def set_baseline(self, seconds: float, now: float) -> None:
        """Set what one sequence takes without load, as measured at startup."""
        self._baseline = self._average = seconds
        self._updated = now

    def add(self, sequences: int, seconds: float, now: float) -> None:
        """Record a run."""
        latest = seconds / sequences
        current = self.seconds_per_sequence(now) or latest
        latest = min(latest, _MAX_OUTLIER * current)
        self._average = current + _EMA_WEIGHT * (latest - current)
        self._updated = now

    def seconds_per_sequence(self, now: float) -> float:
        """The current estimate; 0 before the first measurement."""
        fading: float = 0.5 ** (max(0.0, now - self._updated) / _HALF_LIFE_S)
        return self._baseline + (self._average - self._baseline) * fading


class ActiveClock:
    """A monotonic clock that stops while the process is suspended, for example by SIGSTOP.

    `time.monotonic` continues then. A thread reads it regularly, so that a long gap between two
    readings shows a suspension.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._suspended = 0.0
        self._closed = threading.Event()
        threading.Thread(target=self._tick, name="edge-clock", daemon=True).start()

    def now(self) -> float:
        """Seconds that the process was active since an unspecified point."""
        with self._lock:
            now = time.monotonic()
            if now - self._last > _MAX_GAP_S:
                self._suspended += now - self._last - _TICK_S
            self._last = now
            return now - self._suspended

    def close(self) -> None:
        """Stop the thread. The clock then counts like `time.monotonic` with gaps left out."""
        self._closed.set()

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            self.now()
