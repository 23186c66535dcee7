"""Interleaved timing: who has a turn when, who leaves, and what ends the rounds."""

from __future__ import annotations

import pytest

from edge.bench.timing.interleaved import FailureIsolated, Turn, time_interleaved
from edge.bench.timing.line_process import EngineFailedError, EngineMissingError


class Recorder:
    """Every turn in order; a call of candidate "x" takes `seconds["x"]`."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.turns: list[tuple[str, Turn]] = []

    def __call__(self, candidate: str, turn: Turn) -> float:
        self.turns.append((candidate, turn))
        return self.seconds.get(candidate, 0.0) * turn.count

    def runs(self, candidate: str) -> int:
        return sum(turn.count for name, turn in self.turns if name == candidate)


def test_each_round_starts_with_another_candidate() -> None:
    record, progress = Recorder(), []
    time_interleaved("abc", record, runs=7, turn_length=3, on_progress=progress.append)
    assert "".join(name for name, _ in record.turns) == "abcbcacab"
    assert [turn for name, turn in record.turns if name == "a"] == [
        Turn(0, 3, 1),
        Turn(3, 3, 1),
        Turn(6, 1, 1),
    ]
    assert progress == [3, 6, 7]


def test_turns_are_multiples_and_the_first_may_have_more_warmup() -> None:
    record, progress = Recorder(), []
    time_interleaved(
        "a", record, runs=30, turn_length=5, multiple_of=4, first_warmup=3,
        on_progress=progress.append,
    )  # fmt: skip
    assert [turn.count for _, turn in record.turns] == [8, 8, 8, 8]
    assert [turn.warmup for _, turn in record.turns] == [3, 1, 1, 1]
    assert progress == [8, 16, 24, 30]


def test_those_with_enough_seconds_leave_the_rounds() -> None:
    record = Recorder(slow=1.0, fast=0.1)
    time_interleaved(("slow", "fast"), record, runs=4, turn_length=2, min_seconds=1.0)
    assert record.runs("slow") == 4
    assert record.runs("fast") == 10
    capped = Recorder(fast=0.1)
    time_interleaved(("fast",), capped, runs=4, turn_length=2, min_seconds=1.0, max_runs=6)
    assert capped.runs("fast") == 6


def test_failures_end_one_candidate_and_not_the_others() -> None:
    record, failed = Recorder(), []

    def time_turn(candidate: str, turn: Turn) -> float:
        if candidate == "b" and turn.first:
            raise EngineFailedError("crashed")
        return record(candidate, turn)

    time_interleaved(
        "abc",
        time_turn,
        runs=6,
        turn_length=2,
        on_failure=lambda name, error: failed.append((name, str(error))),
    )
    assert failed == [("b", "crashed")]
    assert [record.runs(name) for name in "abc"] == [6, 2, 6]
    with pytest.raises(EngineFailedError):
        time_interleaved("ab", time_turn, runs=6, turn_length=2)


def test_candidates_can_be_given_up_and_none_is_no_work() -> None:
    record = Recorder()
    time_interleaved("ab", record, runs=6, turn_length=2, keep=lambda name: name == "a")
    assert [record.runs(name) for name in "ab"] == [6, 2]
    time_interleaved("", record, runs=6, turn_length=2)


def test_the_first_failure_is_kept() -> None:
    class Engine(FailureIsolated):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    def fail(error: Exception) -> None:
        raise error

    engine = Engine()
    engine.guard(fail, EngineMissingError("optimum"))
    engine.guard(fail, EngineFailedError("not called"))
    assert engine.failure == "not installed: optimum"
    assert engine.closed == 1
