"""What the harness adds to a call: `python -m edge.bench.timing.overhead`.

A stand-in for a model works for a time that it measures itself; the loop that times every artifact
(`edge.bench.timing.timed_calls`) asks it. What the loop measures beyond is the harness.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from edge.bench.timing.timed_calls import time_calls
from edge.runtime.generation import Generation, Timings
from edge.runtime.model import Model

_CALL_MS = 10.0


@dataclass(frozen=True)
class Overhead:
    """Medians in milliseconds: `in_call` is inside of the time that is reported for a call,
    `between_calls` only in the tokens per second of all."""

    call_ms: float
    in_call_ms: float
    between_calls_ms: float

    @property
    def share(self) -> float:
        """Of the call's own time, both together."""
        return (self.in_call_ms + self.between_calls_ms) / self.call_ms


def measure_overhead(calls: int = 100, call_ms: float = _CALL_MS) -> Overhead:
    """Time a stand-in that is busy for `call_ms`, and compare with what it knows of itself."""
    stand_in = _StandIn(call_ms / 1000)
    turn = time_calls(cast(Model, stand_in), [[("a question", {})]] * calls)
    own = stand_in.ms[1 : calls + 1]  # less the warm-up, and the answers of one token after
    beyond = [measured - known for measured, known in zip(turn.ms, own, strict=True)]
    return Overhead(
        call_ms=statistics.median(own),
        in_call_ms=statistics.median(beyond),
        between_calls_ms=(turn.seconds * 1000 - sum(turn.ms)) / calls,
    )


class _StandIn:
    """Busy, not asleep, as an engine is: a process that sleeps is woken late."""

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
        f" between calls: {found.share:.3%} of a {found.call_ms:.0f} ms call"
    )
