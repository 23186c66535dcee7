"""Overhead of the benchmark itself per call: `python -m edge.bench.timing.overhead`.

`time_calls` times a fake model that is busy for a time that it measures itself. Whatever is
measured beyond that is the overhead.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edge.bench.timing.timed_calls import time_calls
from edge.runtime.generation import Generation, Timings
from edge.runtime.model import Model

_CALL_MS = 10.0


@dataclass(frozen=True)
class Overhead:
    """Overhead in milliseconds.

    Attributes:
        call_ms: median time of a call of the fake model.
        in_call_ms: median of what is added to the reported time of a call.
        between_calls_ms: mean of what is added between calls; it counts in the tokens per second.
    """

    call_ms: float
    in_call_ms: float
    between_calls_ms: float

    @property
    def ratio(self) -> float:
        """Both together, relative to the call."""
        return (self.in_call_ms + self.between_calls_ms) / self.call_ms


def measure_overhead(calls: int = 100, call_ms: float = _CALL_MS) -> Overhead:
    """Time a fake model that is busy for `call_ms` in each of `calls` calls."""
    model = _FakeModel(call_ms / 1000)
    timed = time_calls(cast(Model, model), [[("a question", {})]] * calls)
    actual = np.array(model.ms[1 : calls + 1])  # without warm-up, and without one-token answers
    return Overhead(
        call_ms=float(np.median(actual)),
        in_call_ms=float(np.median(np.array(timed.ms) - actual)),
        between_calls_ms=(timed.seconds * 1000 - sum(timed.ms)) / calls,
    )


class _FakeModel:
    """Busy as an engine is: a process that sleeps would be woken up late."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ms: list[float] = []

    def generate(self, texts: Sequence[str], **_: Any) -> list[Generation]:
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < self._seconds:
            pass
        self.ms.append(passed * 1000)
        return [
            Generation("an answer", (5, 6), 0.0, "eos", 4, False, Timings(0.0, passed * 1000, 0.0))
            for _ in texts
        ]


if __name__ == "__main__":
    found = measure_overhead()
    print(
        f"{found.in_call_ms * 1000:.1f} µs in a call and {found.between_calls_ms * 1000:.1f} µs"
        f" between calls: {found.ratio:.3%} of a {found.call_ms:.0f} ms call"
    )
