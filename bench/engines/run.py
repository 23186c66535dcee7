"""Engines side by side on one model: each in its own process, taking turns, the same ids for all.

What is timed is ids in → exactly so many ids out, batch 1, greedy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import BASELINES
from edge.bench.engines.cache import Prepared, bits_of, size_of
from edge.bench.engines.process import EngineProcess, FailureIsolated, start
from edge.bench.engines.roofline import Floor, floor_of, read_bandwidth
from edge.bench.engines.scaling import Scaling, scaling_points, scaling_table
from edge.bench.timing.latency import DEFAULT_RUNS, MIN_RUNS
from edge.bench.timing.machine import machine_info
from edge.bench.timing.verdict import MEETS, Verdict, judge
from edge.export.publish import Target
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import UsageError

# Called with (phase, what, done, of); phases are "prepare", "threads", "latency" and "scaling".
Progress = Callable[[str, str, int, int], None]
# Source ids and the number of new tokens.
Point = tuple[tuple[int, ...], int]

_ROUND = 5  # timed answers of one engine before the next has its turn
_SCREENING_ROUNDS, _SCREENING_RUNS = 4, 2
# Some tenths of a second of another's work on this machine must not decide the number of threads.
_SCREENING_MS, _MOST_ROUNDS = 750, 40
_HOPELESS = 1.5  # times the fastest


@dataclass(frozen=True)
class Settings:
    """What is asked of every engine. `threads` is the most: each gets the number up to this that
    is fastest for it."""

    input_tokens: int = 32
    new_tokens: int = 16
    threads: int = 2
    runs: int = DEFAULT_RUNS
    target_ms: float = 100.0

    def __post_init__(self) -> None:
        if self.runs < MIN_RUNS:
            raise UsageError(
                f"--runs must be at least {MIN_RUNS}, not {self.runs}: fewer make no median"
            )
        if self.new_tokens < 2:
            raise UsageError("--new-tokens must be at least 2: one token has no cost per token")


@dataclass(frozen=True)
class Speed:
    """Milliseconds of an answer of `new_tokens`; `first_ms` is the median of an answer of one token
    (encoder included), `per_token_ms` the median cost of each further one."""

    threads: int
    load_ms: float
    import_ms: float
    p5: float
    p50: float
    p95: float
    first_ms: float
    per_token_ms: float
    rss: int
    peak_rss: int
    times_ms: tuple[float, ...]


@dataclass(frozen=True)
class EngineRow:
    """One line of the table. Without `speed`, `failure` says why."""

    name: str
    engine: str
    quantization: str
    bits: int
    own: bool
    size: int = 0
    speed: Speed | None = None
    failure: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class EngineReport:
    """Everything that was measured in one run. `bandwidth` is in bytes per second, floors are by
    bits per decoder weight."""

    model: str
    random_weights: bool
    settings: Settings
    rows: list[EngineRow]
    bandwidth: float
    floors: dict[int, Floor]
    scaling: list[Scaling]
    machine: dict[str, Any]
    created: str
    interrupted: bool = False

    def best_baseline(self, bits: int) -> EngineRow | None:
        """The fastest baseline of that precision, by its median."""
        baselines = [row for row in self.rows if not row.own and row.speed and row.bits == bits]
        return min(baselines, key=lambda row: row.speed.p50 if row.speed else 0.0, default=None)

    def times_faster(self, row: EngineRow) -> float | None:
        """How many times faster a row is than the fastest baseline of its precision."""
        best = self.best_baseline(row.bits)
        if best is None or best.speed is None or row.speed is None:
            return None
        return best.speed.p50 / row.speed.p50

    def times_floor(self, row: EngineRow) -> float | None:
        floor = self.floors.get(row.bits)
        return row.speed.p50 / floor.ms if floor and row.speed else None

    def verdict(self, row: EngineRow) -> Verdict | None:
        """Whether the row's runs show that its p95 meets the target; None without runs."""
        return judge(row.speed.times_ms, self.settings.target_ms) if row.speed else None

    def meets_target(self, row: EngineRow) -> bool:
        verdict = self.verdict(row)
        return verdict is not None and verdict.word == MEETS

    @property
    def any_meets_target(self) -> bool:
        """Whether one of our own artifacts is shown to: baselines are there to compare with."""
        return any(self.meets_target(row) for row in self.rows if row.own)

    def as_json(self) -> dict[str, Any]:
        """docs/engines.md describes the fields."""
        values = dataclasses.asdict(self)
        for row, fields in zip(self.rows, values["rows"], strict=True):
            fields["times_faster_than_best_baseline"] = self.times_faster(row)
            fields["times_floor"] = self.times_floor(row)
            fields["meets_target"] = self.meets_target(row)
            verdict = self.verdict(row)
            fields["verdict"] = verdict.word if verdict else None
            fields["verdict_reason"] = verdict.reason if verdict else row.failure
        return {"schema_version": 1, "kind": "engines", **values}


def run_engines(
    name: str,
    prepared: Prepared,
    shape: Architecture,
    targets: Sequence[Target],
    settings: Settings = Settings(),
    *,
    random_weights: bool = True,
    baselines: Sequence[str] = (),
    scaling: bool = False,
    on_progress: Progress | None = None,
) -> EngineReport:
    """Measure our artifacts for `targets`, and `baselines`, on the model of `prepared`.

    An engine that is not installed, can't convert the model, crashes or answers with another number
    of tokens gets a row that says so; the rest is measured.

    Raises:
        EnginesInterruptedError: Ctrl-C; it has the report of what was measured.
    """
    notify = on_progress or (lambda *_: None)
    rows = [_own_row(target) for target in targets] + [
        _baseline_row(baseline) for baseline in baselines
    ]
    specs = [prepared.artifact(t) for t in targets] + [prepared.baseline(p) for p in baselines]
    runners = [Runner(row, spec) for row, spec in zip(rows, specs, strict=True)]
    ids = Ids(prepared.model, shape)
    point: Point = (ids.of_length(settings.input_tokens), settings.new_tokens)
    bandwidth = 0.0
    tables: list[Scaling] = []
    interrupted = measured = False
    with contextlib.ExitStack() as stack:
        for runner in runners:
            stack.callback(runner.close)
        try:
            _start(runners, prepared, point, settings, notify)
            bandwidth = read_bandwidth(settings.threads)
            measure(
                runners, _with_one(point), settings.runs, lambda *of: notify("latency", "", *of)
            )
            bandwidth = max(bandwidth, read_bandwidth(settings.threads))
            rows, measured = [runner.summary(point) for runner in runners], True
            if scaling:
                own = [runner for runner in runners if runner.row.own and runner.process]
                tables = _measure_scaling(own, ids, settings, notify)
        except KeyboardInterrupt:
            interrupted = True
            if not measured:
                rows = [runner.summary(point) for runner in runners]
    report = EngineReport(
        model=name,
        random_weights=random_weights,
        settings=settings,
        rows=rows,
        bandwidth=bandwidth,
        floors=floors(rows, shape, settings, bandwidth) if bandwidth else {},
        scaling=tables,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        interrupted=interrupted,
    )
    if interrupted:
        raise EnginesInterruptedError(report)
    return report


class EnginesInterruptedError(KeyboardInterrupt):
    """Ctrl-C; `report` holds what was measured before."""

    def __init__(self, report: EngineReport) -> None:
        super().__init__("interrupted")
        self.report = report


def _start(
    runners: Sequence[Runner],
    prepared: Prepared,
    point: Point,
    settings: Settings,
    notify: Progress,
) -> None:
    """Convert the model for every engine, then load each with its best number of threads."""
    for place, runner in enumerate(runners):
        notify("prepare", runner.row.name, place, len(runners))
        runner.guard(prepared.make, runner.spec)
    notify("prepare", "", len(runners), len(runners))
    for place, runner in enumerate(runners):
        notify("threads", runner.row.name, place, len(runners))
        runner.guard(runner.start, point, settings.threads)
    notify("threads", "", len(runners), len(runners))


def _measure_scaling(
    own: Sequence[Runner], ids: Ids, settings: Settings, notify: Progress
) -> list[Scaling]:
    points = scaling_points(ids.of_length, settings.input_tokens, settings.new_tokens)
    every = list(dict.fromkeys(one for each in points for one in _with_one(each)))
    for runner in own:
        runner.times.clear()  # these lengths are compared with each other
    measure(own, every, settings.runs, lambda *of: notify("scaling", "", *of))
    return [scaling_table(r.row.name, points, r.times) for r in own if r.process]


def floors(
    rows: Sequence[EngineRow], shape: Architecture, settings: Settings, bandwidth: float
) -> dict[int, Floor]:
    """The floor for each precision in `rows`, with the encoder of our fastest artifact of it."""
    found = {}
    for bits in sorted({row.bits for row in rows}):
        # The first token's time but for its own step is what happens once per answer.
        once = [
            (row.speed.p50, max(0.0, row.speed.first_ms - row.speed.per_token_ms))
            for row in rows
            if row.own and row.speed and row.bits == bits
        ]
        found[bits] = floor_of(
            shape,
            bits=bits,
            bandwidth=bandwidth,
            new_tokens=settings.new_tokens,
            encoder_ms=min(once)[1] if once else 0.0,
        )
    return found


def measure(
    runners: Sequence[Runner],
    points: Sequence[Point],
    runs: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Time every point with every engine, `_ROUND` answers at a time, engines taking turns."""
    done = 0
    while done < runs:
        size = min(_ROUND, runs - done)
        for turn in range(len(runners)):
            # Another engine starts each round: none always follows the same neighbor.
            runner = runners[(done // _ROUND + turn) % len(runners)]
            for point in points:
                runner.guard(runner.time, point, size)
        done += size
        on_progress(done, runs)


def _with_one(point: Point) -> list[Point]:
    """A point, and the same with one new token: the difference is the cost of the others."""
    return [point, (point[0], 1)]


class Runner(FailureIsolated):
    """One engine through a run: its process, what it was asked, and what became of it."""

    def __init__(self, row: EngineRow, spec: Spec) -> None:
        self.row = row
        self.spec = spec
        self.process: EngineProcess | None = None
        self.times: dict[Point, list[float]] = {}
        self._rss = self._peak_rss = 0

    def fail(self, reason: str) -> None:
        super().fail(reason)
        self.row = dataclasses.replace(self.row, failure=reason)

    def start(self, point: Point, most_threads: int) -> None:
        """Load the engine with the number of threads that a short screening finds best."""
        started: dict[int, EngineProcess] = {}
        try:
            for threads in thread_counts(most_threads):
                started[threads] = start(dataclasses.replace(self.spec, threads=threads))
            best = screen(started, point)
            self.process = started.pop(best)
            self.spec = dataclasses.replace(self.spec, threads=best)
        finally:
            for process in started.values():
                process.close()

    def time(self, point: Point, runs: int) -> None:
        assert self.process
        found = self.process.time(*point, runs)
        self.times.setdefault(point, []).extend(found.ms)
        self._rss, self._peak_rss = found.rss, found.peak_rss

    def summary(self, point: Point) -> EngineRow:
        """The row with its figures, for an answer as `point` asks for."""
        if self.failure:
            return self.row
        if self.process is None or not all(self.times.get(one) for one in _with_one(point)):
            return dataclasses.replace(self.row, failure="not measured: interrupted")
        times = np.array(self.times[point])
        first = statistics.median(self.times[_with_one(point)[1]])
        p5, p50, p95 = (float(value) for value in np.percentile(times, (5, 50, 95)))
        speed = Speed(
            threads=self.spec.threads,
            load_ms=self.process.ready["load_ms"],
            import_ms=self.process.ready["import_ms"],
            p5=p5,
            p50=p50,
            p95=p95,
            first_ms=first,
            per_token_ms=(p50 - first) / (point[1] - 1),
            rss=self._rss,
            peak_rss=self._peak_rss,
            times_ms=tuple(round(value, 4) for value in times.tolist()),
        )
        versions = self.process.ready["versions"]
        return dataclasses.replace(
            self.row, size=size_of(self.spec), speed=speed, versions=versions
        )

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None


class Ids:
    """Source ids that are the same in every run: random pieces, and eos."""

    def __init__(self, model: Path, shape: Architecture) -> None:
        from tokenizers import Tokenizer

        self._pieces = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab_size()
        self.eos = shape.eos_token_id

    def of_length(self, length: int) -> tuple[int, ...]:
        drawn = np.random.default_rng(length).integers(3, self._pieces, length - 1)
        return (*drawn.tolist(), self.eos)


def screen(processes: Mapping[int, EngineProcess], point: Point) -> int:
    """The number of threads whose process answers fastest, by the median of some rounds.

    Raises:
        EngineFailedError: one of them can't.
    """
    times: dict[int, list[float]] = {threads: [] for threads in processes}
    for number in range(_MOST_ROUNDS):
        asked_long = all(sum(found) >= _SCREENING_MS for found in times.values())
        if len(times) == 1 or (number >= _SCREENING_ROUNDS and asked_long):
            break
        for threads in times:
            times[threads] += processes[threads].time(*point, _SCREENING_RUNS).ms
        best = min(statistics.median(found) for found in times.values())
        # What is far behind even at its best is not asked again: it may take seconds each time.
        times = {t: ms for t, ms in times.items() if min(ms) < _HOPELESS * best}
    return min(times, key=lambda threads: statistics.median(times[threads] or [0.0]))


def thread_counts(most: int) -> list[int]:
    """Powers of two up to `most`, and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def _own_row(target: Target) -> EngineRow:
    bits = bits_of(target.quantization)
    return EngineRow(target.name, f"edge {target.format}", target.quantization, bits, own=True)


def _baseline_row(name: str) -> EngineRow:
    baseline = BASELINES[name]
    return EngineRow(name, baseline.engine, baseline.quantization, baseline.bits, own=False)
