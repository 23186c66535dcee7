"""Interleaved timing: candidates take turns, so that a noisy moment affects all of them."""

from __future__ import annotations

import abc
import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edge.bench.timing.line_process import EngineMissingError, EngineProcessError

C = TypeVar("C")


@dataclass(frozen=True)
class Turn:
    """The calls that a candidate times before the next candidate has its turn.

    Attributes:
        first: how many timed calls each candidate made before this turn.
        count: timed calls of this turn.
        warmup: untimed calls before them, which bring back the caches that others evicted.
    """

    first: int
    count: int
    warmup: int


def time_interleaved(
    candidates: Sequence[C],
    time_turn: Callable[[C, Turn], float],
    *,
    runs: int,
    turn_length: int,
    multiple_of: int = 1,
    min_seconds: float = 0.0,
    max_runs: int | None = None,
    first_warmup: int = 1,
    keep: Callable[[C], bool] | None = None,
    on_failure: Callable[[C, EngineProcessError], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Let candidates take turns until each has its runs and its seconds.

    Every round gives each remaining candidate one turn of the same calls, and starts with another
    candidate, so that none always follows the same neighbor. Candidates in separate processes
    are expected to be paused outside their turns (`LineProcess.request` does that).

    Args:
        candidates: what is compared.
        time_turn: makes the calls of one turn and keeps their times; returns the seconds that the
            timed calls took.
        runs: the least number of timed calls of each candidate.
        turn_length: timed calls of a turn.
        multiple_of: the number of calls in a turn is rounded up to a multiple of this (of the
            threads that call at once).
        min_seconds: the least time of the timed calls of each candidate. Those that have both
            leave the rounds.
        max_runs: where to stop short of `min_seconds`.
        first_warmup: untimed calls before a candidate's first turn; one before every other.
        keep: asked after each round; False drops a candidate.
        on_failure: called with a candidate whose `time_turn` raised EngineProcessError, which is
            then dropped. None lets the error through.
        on_progress: called after each round with the number of timed calls of each, at most `runs`.
    """
    active = list(range(len(candidates)))
    seconds = [0.0] * len(candidates)
    done = 0
    for number in itertools.count():
        if not active:
            return
        count = min(turn_length, runs - done) if done < runs else turn_length
        turn = Turn(done, _round_up(count, multiple_of), 1 if done else first_warmup)
        first = number % len(active)
        for place in (*active[first:], *active[:first]):
            try:
                seconds[place] += time_turn(candidates[place], turn)
            except EngineProcessError as error:
                if on_failure is None:
                    raise
                on_failure(candidates[place], error)
                active.remove(place)
        done += turn.count
        if on_progress is not None:
            on_progress(min(done, runs))
        at_end = max_runs is not None and done >= max_runs
        active = [
            place
            for place in active
            if (done < runs or (seconds[place] < min_seconds and not at_end))
            and (keep is None or keep(candidates[place]))
        ]


def _round_up(count: int, multiple_of: int) -> int:
    return -(-count // multiple_of) * multiple_of


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Keep Python's garbage collector from running inside timed calls."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class FailureIsolated(abc.ABC):
    """An engine of a benchmark whose failure is recorded while the other engines go on."""

    failure = ""

    def guard(self, action: Callable[..., object], *arguments: Any) -> None:
        """Call `action` and record its EngineProcessError; do nothing after a failure."""
        if self.failure:
            return
        try:
            action(*arguments)
        except EngineProcessError as error:
            self.fail(error)

    def fail(self, error: EngineProcessError) -> None:
        """Record why the engine failed, and end its process."""
        missing = isinstance(error, EngineMissingError)
        self.failure = f"not installed: {error}" if missing else str(error)
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """End the engine's process, if it is running."""
