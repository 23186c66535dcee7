"""The engine benchmark: edge's artifacts and the baselines side by side on one model.

Each engine runs in a separate process, and timing is interleaved. Every engine gets the same source
ids and generates answers of the same exact length: from ids to ids, greedy, one by one and in
batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
from collections.abc import Callable, Sequence

from edge.bench.engines.baselines.table import BASELINES
from edge.bench.engines.batches import (
    BatchSpeed,
    batch_runs,
    batch_speed,
    check_batches,
)
from edge.bench.engines.cache import Prepared, bits_of
from edge.bench.engines.matrix_rate import MatrixRate, measure_matrix_rate
from edge.bench.engines.random_ids import RandomIds
from edge.bench.engines.results import (
    EngineReport,
    EngineRow,
    EnginesInterruptedError,
    Settings,
)
from edge.bench.engines.roofline import read_bandwidth, rooflines
from edge.bench.engines.runner import EngineRunner, Point, time_points, with_first
from edge.bench.engines.scaling import Scaling, scaling_points, scaling_table
from edge.bench.signals import signal_of
from edge.bench.timing.machine import machine_info
from edge.export.publish import Target
from edge.runtime.artifact.manifest import Architecture

_BATCH_TURN = 5  # answers of one engine before the next has its turn, at least one batch
# Called with (phase, engine, done, total); phases are "prepare", "threads", "latency", "scaling"
# and "batch N".
Progress = Callable[[str, str, int, int], None]


def run_engines(
    name: str,
    prepared: Prepared,
    shape: Architecture,
    targets: Sequence[Target],
    settings: Settings | None = None,
    *,
    random_weights: bool = True,
    baselines: Sequence[str] = (),
    scaling: bool = False,
    on_progress: Progress | None = None,
) -> EngineReport:
    """Measure edge's artifacts and the baselines on one model.

    An engine that is not installed, can't convert the model, crashes or answers with another number
    of tokens gets a row that says so; the rest is measured.

    Args:
        name: of the model, for the report.
        prepared: the model and what is made from it.
        shape: of the model.
        targets: the artifacts to make and measure.
        settings: what every engine is asked; None takes the defaults.
        random_weights: for the report.
        baselines: names of `edge.bench.engines.baselines.table.BASELINES`.
        scaling: measure longer answers and longer inputs of edge's artifacts, too.
        on_progress: called with phase, engine, done and total.

    Raises:
        UsageError: a batch does not fit into memory.
        EnginesInterruptedError: Ctrl-C or another signal; it has the report of what was measured.
    """
    settings = settings or Settings()
    check_batches(
        name,
        shape,
        settings.batches,
        input_tokens=settings.input_tokens,
        new_tokens=settings.new_tokens,
    )
    notify = on_progress or (lambda *_: None)
    rows = [_artifact_row(target) for target in targets]
    rows += [_baseline_row(baseline) for baseline in baselines]
    specs = [prepared.artifact(target) for target in targets]
    specs += [prepared.baseline(baseline) for baseline in baselines]
    runners = [EngineRunner(row, spec) for row, spec in zip(rows, specs, strict=True)]
    ids = RandomIds(prepared.model, shape)
    point: Point = (ids.rows(settings.input_tokens), settings.new_tokens)
    found = _Measurements(rows, {row.name: [] for row in rows})
    stopped_by: int | None = None
    with contextlib.ExitStack() as stack:
        for runner in runners:
            stack.callback(runner.close)
        try:
            _start(runners, prepared, point, settings, notify)
            _measure_latency(runners, point, settings, found, notify)
            if scaling:
                artifacts = [one for one in runners if not one.row.is_baseline and one.process]
                found.scaling = _measure_scaling(artifacts, ids, settings, notify)
            _measure_batches(runners, ids, settings, found.batches, notify)
        except KeyboardInterrupt as error:
            stopped_by = signal_of(error)
            if not found.latency_is_complete:
                found.rows = [runner.summary(point) for runner in runners]
    report = _report(
        name,
        shape,
        settings,
        found,
        random_weights=random_weights,
        interrupted=stopped_by is not None,
    )
    if stopped_by is not None:
        raise EnginesInterruptedError(report, stopped_by)
    return report


@dataclasses.dataclass
class _Measurements:
    """What was measured so far: of the engines by the rows' names, and of the machine."""

    rows: list[EngineRow]
    batches: dict[str, list[BatchSpeed]]
    latency_is_complete: bool = False
    scaling: list[Scaling] = dataclasses.field(default_factory=list)
    bandwidth: float = 0.0  # bytes per second
    matrix_rate: MatrixRate = dataclasses.field(default_factory=MatrixRate)


def _report(
    name: str,
    shape: Architecture,
    settings: Settings,
    found: _Measurements,
    *,
    random_weights: bool,
    interrupted: bool,
) -> EngineReport:
    """The report of what was measured, with the rooflines of the machine."""
    limits = functools.partial(
        rooflines,
        shape,
        {row.bits for row in found.rows},
        bandwidth=found.bandwidth,
        macs_per_second=found.matrix_rate.macs_per_second,
        input_tokens=settings.input_tokens,
        new_tokens=settings.new_tokens,
    )
    return EngineReport(
        model=name,
        random_weights=random_weights,
        settings=settings,
        rows=[
            dataclasses.replace(row, batches=tuple(found.batches[row.name])) for row in found.rows
        ],
        bandwidth=found.bandwidth,
        matrix_rate=found.matrix_rate,
        rooflines=limits(),
        scaling=found.scaling,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        interrupted=interrupted,
        batch_rooflines=[
            roofline for batch in settings.batches for roofline in limits(batch=batch).values()
        ],
    )


def _start(
    runners: Sequence[EngineRunner],
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


def _measure_latency(
    runners: Sequence[EngineRunner],
    point: Point,
    settings: Settings,
    found: _Measurements,
    notify: Progress,
) -> None:
    """Time single answers, and the machine before and after them."""
    found.bandwidth = read_bandwidth(settings.threads)
    found.matrix_rate = measure_matrix_rate(settings.threads)
    time_points(
        runners,
        with_first(point),
        settings.runs,
        lambda done: notify("latency", "", done, settings.runs),
    )
    found.bandwidth = max(found.bandwidth, read_bandwidth(settings.threads))
    found.matrix_rate = found.matrix_rate.merged(measure_matrix_rate(settings.threads))
    found.rows = [runner.summary(point) for runner in runners]
    found.latency_is_complete = True


def _measure_scaling(
    runners: Sequence[EngineRunner], ids: RandomIds, settings: Settings, notify: Progress
) -> list[Scaling]:
    points = scaling_points(ids.rows, settings.input_tokens, settings.new_tokens)
    with_firsts = list(dict.fromkeys(one for point in points for one in with_first(point)))
    for runner in runners:
        runner.times.clear()  # all lengths are measured at the same time
    time_points(
        runners,
        with_firsts,
        settings.runs,
        lambda done: notify("scaling", "", done, settings.runs),
    )
    return [scaling_table(one.row.name, points, one.times) for one in runners if one.process]


def _measure_batches(
    runners: Sequence[EngineRunner],
    ids: RandomIds,
    settings: Settings,
    found: dict[str, list[BatchSpeed]],
    notify: Progress,
) -> None:
    """Measure each batch size; `found` gets the results by the rows' names.

    An engine that fails, for example for lack of memory, is out for the larger batches. One that
    answers one by one is measured in the smallest only: it answers as many a second in the others.
    """
    for batch in sorted(settings.batches):
        if batch > min(settings.batches):
            runners = [one for one in runners if not _answers_one_by_one(one)]
        point: Point = (ids.rows(settings.input_tokens, batch), settings.new_tokens)
        phase, runs = f"batch {batch}", batch_runs(batch, settings.runs)
        for runner in runners:
            runner.times.clear()
            if not _answers_one_by_one(runner):
                runner.guard(runner.start, point, settings.threads)
        time_points(
            runners,
            with_first(point),
            runs,
            lambda done, phase=phase, runs=runs: notify(phase, "", done, runs),  # type: ignore[misc]
            turn_length=max(1, _BATCH_TURN // batch),
        )
        for runner in runners:
            if runner.failure:
                speed = BatchSpeed(batch, failure=runner.failure)
            else:
                whole, first = (runner.times[one] for one in with_first(point))
                speed = batch_speed(batch, runner.spec.threads, whole, first, settings.new_tokens)
            found[runner.row.name].append(speed)


def _answers_one_by_one(runner: EngineRunner) -> bool:
    """Whether the best number of threads does not depend on the batch."""
    baseline = BASELINES.get(runner.spec.engine)
    return baseline is not None and not baseline.batches


def _artifact_row(target: Target) -> EngineRow:
    bits = bits_of(target.quantization)
    engine = f"edge {target.format}"
    return EngineRow(target.name, engine, target.quantization, bits, is_baseline=False)


def _baseline_row(name: str) -> EngineRow:
    baseline = BASELINES[name]
    return EngineRow(name, baseline.engine, baseline.quantization, baseline.bits, is_baseline=True)
