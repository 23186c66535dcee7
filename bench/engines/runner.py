"""One engine through a run: its process, the number of threads that suits it, its times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.cache import size_of
from edge.bench.engines.process import EngineProcess, start
from edge.bench.engines.random_ids import Rows
from edge.bench.engines.results import EngineRow, Speed
from edge.bench.engines.step_time import step_ms
from edge.bench.timing.interleaved import FailureIsolated, Turn, time_interleaved
from edge.bench.timing.line_process import EngineProcessError

# Sources that are answered together, and the number of new tokens of each.
Point = tuple[Rows, int]

_TURN = 5  # timed answers of one engine before the next has its turn
_SCREENING_TURN, _SCREENING_RUNS = 2, 8
_BATCH_SCREENING_RUNS = 2
# A few tenths of a second of other work on this machine must not decide the number of threads.
_SCREENING_SECONDS, _SCREENING_MAX_RUNS = 0.75, 80
_HOPELESS = 1.5  # times the median of the fastest


class EngineRunner(FailureIsolated):
    """The process of one engine, what it was asked, and its times.

    Attributes:
        row: its line of the table.
        spec: what its process runs.
        process: None before the start and after the end.
        times: milliseconds of each run, by sources and number of new tokens.
    """

    def __init__(self, row: EngineRow, spec: Spec) -> None:
        self.row = row
        self.spec = spec
        self.process: EngineProcess | None = None
        self.times: dict[Point, list[float]] = {}
        self._rss = self._peak_rss = 0

    def fail(self, error: EngineProcessError) -> None:
        """Record why the engine failed, in its row too, and end its process."""
        super().fail(error)
        self.row = dataclasses.replace(self.row, failure=self.failure)

    def start(self, point: Point, max_threads: int) -> None:
        """Load the engine with the number of threads that is fastest in a short screening.

        If it is running, the screening decides whether it goes on or starts with another number.

        Raises:
            EngineMissingError: a library of the engine is not installed.
            EngineFailedError: it can't load the model or answer.
        """
        started: dict[int, EngineProcess] = {}
        if self.process is not None:
            started[self.spec.threads], self.process = self.process, None
        try:
            for threads in thread_counts(max_threads):
                if threads not in started:
                    started[threads] = start(dataclasses.replace(self.spec, threads=threads))
            best = fastest_thread_count(started, point)
            self.process = started.pop(best)
            self.spec = dataclasses.replace(self.spec, threads=best)
        finally:
            for process in started.values():
                process.close()

    def time(self, points: Sequence[Point], turn: Turn) -> float:
        """Time one turn of every point; returns the seconds of the timed answers.

        Raises:
            EngineFailedError: the engine reported an error, ended or timed out.
        """
        assert self.process
        total = 0.0
        for point in points:
            found = self.process.time(*point, turn.count, turn.warmup)
            self.times.setdefault(point, []).extend(found.ms)
            self._rss, self._peak_rss = found.rss, found.peak_rss
            total += sum(found.ms)
        return total / 1000

    def summary(self, point: Point) -> EngineRow:
        """The row with the figures of answers to `point`."""
        if self.failure:
            return self.row
        if self.process is None or not all(self.times.get(one) for one in with_first(point)):
            return dataclasses.replace(self.row, failure="not measured: interrupted")
        times = self.times[point]
        first = float(np.median(self.times[with_first(point)[1]]))
        p5, p50, p95 = (float(value) for value in np.percentile(times, (5, 50, 95)))
        speed = Speed(
            threads=self.spec.threads,
            load_ms=self.process.ready["load_ms"],
            import_ms=self.process.ready["import_ms"],
            p5=p5,
            p50=p50,
            p95=p95,
            first_ms=first,
            per_token_ms=step_ms(p50, first, point[1]),
            rss=self._rss,
            peak_rss=self._peak_rss,
            times_ms=tuple(round(value, 4) for value in times),
        )
        versions = self.process.ready["versions"]
        return dataclasses.replace(
            self.row, size=size_of(self.spec), speed=speed, versions=versions
        )

    def close(self) -> None:
        """End the engine's process, if it is running."""
        if self.process is not None:
            self.process.close()
            self.process = None


def with_first(point: Point) -> list[Point]:
    """A point, and the same with one new token: the difference is the cost of the other tokens."""
    return [point, (point[0], 1)]


def time_points(
    runners: Sequence[EngineRunner],
    points: Sequence[Point],
    runs: int,
    on_progress: Callable[[int], None],
    turn_length: int = _TURN,
) -> None:
    """Time `runs` runs of every point with every engine, interleaved."""
    time_interleaved(
        [runner for runner in runners if not runner.failure],
        lambda runner, turn: runner.time(points, turn),
        runs=runs,
        turn_length=turn_length,
        on_failure=EngineRunner.fail,
        on_progress=on_progress,
    )


def thread_counts(most: int) -> list[int]:
    """Powers of two up to `most`, and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def fastest_thread_count(processes: Mapping[int, EngineProcess], point: Point) -> int:
    """The number of threads whose process answers fastest, by the median of some interleaved turns.

    Raises:
        EngineFailedError: one of the engines reported an error, ended or timed out.
    """
    times: dict[int, list[float]] = {threads: [] for threads in processes}

    def time_turn(threads: int, turn: Turn) -> float:
        found = processes[threads].time(*point, turn.count, turn.warmup).ms
        times[threads] += found
        return sum(found) / 1000

    def may_be_fastest(threads: int) -> bool:
        # One that is far behind even at its best may take seconds for each further answer.
        best = min(float(np.median(found)) for found in times.values())
        left = [one for one, found in times.items() if min(found) < _HOPELESS * best]
        return len(left) > 1 and threads in left

    is_batch = len(point[0]) > 1
    if len(processes) > 1:
        time_interleaved(
            list(processes),
            time_turn,
            runs=_BATCH_SCREENING_RUNS if is_batch else _SCREENING_RUNS,
            turn_length=1 if is_batch else _SCREENING_TURN,
            min_seconds=_SCREENING_SECONDS,
            max_runs=_SCREENING_MAX_RUNS,
            keep=may_be_fastest,
        )
    return min(times, key=lambda threads: float(np.median(times[threads] or [0.0])))
