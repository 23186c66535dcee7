"""Measurement of several artifacts on one data set: accuracy, latency and the verdict on each.

Every artifact runs in a separate process, which is paused while the others are measured. Artifacts
take turns, so that noise on the machine affects all of them alike.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from edge.bench.artifacts.accuracy import Accuracy, copy_baseline, measure_accuracy
from edge.bench.artifacts.agreement import agree
from edge.bench.artifacts.compatibility import check_rows, notes_on, open_artifacts
from edge.bench.artifacts.results import BenchInterruptedError, BenchSettings, Data, Report, Result
from edge.bench.engines.process_model import RemoteModel
from edge.bench.signals import signal_of
from edge.bench.timing.interleaved import FailureIsolated, Turn, time_interleaved
from edge.bench.timing.latency import Latency, Samples, spread_rows
from edge.bench.timing.machine import machine_info
from edge.bench.timing.timed_calls import Call
from edge.bench.timing.verdict import Verdict, check_target, judge
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import Manifest
from edge.runtime.engines.base import choose_threads
from edge.runtime.model import Model
from edge.runtime.rows import Row, data_sha256

# Called with (phase, what, done, of); the phase is "load", "latency" or "accuracy", and `what` an
# artifact, or the batch size and concurrency where there are several.
Progress = Callable[[str, str, int, int], None]

_TURN = 5  # timed calls of one artifact before the next has its turn
FIRST_WARMUP = 3  # untimed calls before an artifact's first turn


@dataclass(frozen=True)
class Case:
    """How an artifact is asked: texts in one call, and threads that call at once."""

    batch: int
    concurrency: int

    def __str__(self) -> str:
        return f"batch {self.batch}, concurrency {self.concurrency}"

    @property
    def turn_length(self) -> int:
        """Calls in a turn: the same number for each thread."""
        return -(-_TURN // self.concurrency) * self.concurrency


def run_bench(
    artifacts: Sequence[str | Path],
    rows: Sequence[Row],
    *,
    target_ms: float = 100.0,
    runs: int | None = None,
    settings: BenchSettings | None = None,
    threads: int | None = None,
    reference: str | Path | None = None,
    data: str | Path | None = None,
    command: str = "",
    on_progress: Progress | None = None,
    trust_code: bool = False,
) -> Report:
    """Measure artifacts on rows that have targets.

    An artifact whose library is not installed, or whose engine fails, crashes or hangs, gets a
    result with an `error`; the others are measured.

    Args:
        artifacts: artifact folders.
        rows: inputs with targets.
        target_ms: the target for p95, in milliseconds; see `edge.bench.timing.verdict`.
        runs: replaces the runs of `settings`.
        settings: how often and how artifacts are asked; None takes the defaults.
        threads: number of threads of each engine; None takes each artifact's tuned number, or 1.
        reference: an artifact or model folder to compare answers with; None takes the float32
            artifact of the same model.
        data: the file of the rows, for the report.
        command: the command line, for the report.
        on_progress: called with the phase, what is measured, the amount done, and the total.
        trust_code: see `edge.runtime.load`.

    Raises:
        UsageError: too few runs, an impossible target, no artifact, or rows that don't fit the
            artifacts' prompts.
        ArtifactError: a folder that is not an artifact, or an artifact whose tokenizer or prompt
            differs from what its manifest records.
        MissingExtraError: the metrics' libraries are not installed.
        BenchInterruptedError: Ctrl-C; it holds the report of what was measured.
    """
    check_target(target_ms)
    settings = settings or BenchSettings()
    if runs is not None:
        settings = replace(settings, runs=runs)
    notify = on_progress or (lambda *_: None)
    opened = open_artifacts(artifacts, trust_code=trust_code)
    check_rows(opened, rows)
    benchmarked = [
        BenchmarkedArtifact(str(name), artifact, choose_threads(artifact, threads))
        for name, artifact in zip(artifacts, opened, strict=True)
    ]
    cases = [Case(*pair) for pair in itertools.product(settings.batch, settings.concurrency)]
    report = Report(
        results=[],
        target_ms=target_ms,
        data=Data(
            path=None if data is None else str(data),
            rows=len(rows),
            sha256=None if data is None else data_sha256(data),
        ),
        settings=settings,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        notes=notes_on(opened, rows),
        # Before the measurement: it fails if a metric's library is missing.
        baseline=copy_baseline(rows),
    )
    try:
        _measure(benchmarked, rows, cases, settings, notify)
        _compare_answers(benchmarked, rows, reference)
    except KeyboardInterrupt as error:
        found = _results(benchmarked, cases, target_ms, "not measured: interrupted")
        stopped = replace(report, results=found, interrupted=True)
        raise BenchInterruptedError(stopped, signal_of(error)) from None
    return replace(report, results=_results(benchmarked, cases, target_ms))


def _measure(
    benchmarked: Sequence[BenchmarkedArtifact],
    rows: Sequence[Row],
    cases: Sequence[Case],
    settings: BenchSettings,
    notify: Progress,
) -> None:
    """Latency first: memory that scoring uses would count as the engine's."""
    with contextlib.ExitStack() as stack:
        for index, one in enumerate(benchmarked):
            notify("load", one.name, index, len(benchmarked))
            stack.callback(one.close)
            one.guard(one.start, rows[0])
        notify("load", "", len(benchmarked), len(benchmarked))
        for case in cases:

            def latency_done(done: int, what: str = str(case) if len(cases) > 1 else "") -> None:
                notify("latency", what, done, settings.runs)

            time_case(benchmarked, rows, case, settings, latency_done)
        for one in benchmarked:

            def accuracy_done(done: int, name: str = one.name) -> None:
                notify("accuracy", name, done, len(rows))

            one.guard(one.score, rows, accuracy_done)
            one.close()


def _compare_answers(
    benchmarked: Sequence[BenchmarkedArtifact], rows: Sequence[Row], reference: str | Path | None
) -> None:
    """Add to every accuracy its agreement with the reference."""
    names = [one.name for one in benchmarked]
    manifests = [one.manifest for one in benchmarked]
    accuracies = agree(names, manifests, [one.accuracy for one in benchmarked], rows, reference)
    for one, accuracy in zip(benchmarked, accuracies, strict=True):
        one.accuracy = accuracy


def time_case(
    benchmarked: Sequence[BenchmarkedArtifact],
    rows: Sequence[Row],
    case: Case,
    settings: BenchSettings,
    on_progress: Callable[[int], None],
) -> None:
    """Time one case of every artifact on the same rows, until each has its runs and seconds."""
    calls = calls_of(rows, settings.runs, case.batch)

    def time_turn(one: BenchmarkedArtifact, turn: Turn) -> float:
        chosen = [calls[(turn.first + place) % len(calls)] for place in range(turn.count)]
        return one.time_calls(case, chosen, settings.new_tokens, turn.warmup)

    time_interleaved(
        [one for one in benchmarked if not one.failure],
        time_turn,
        runs=settings.runs,
        turn_length=_TURN,
        multiple_of=case.concurrency,
        min_seconds=settings.seconds,
        first_warmup=FIRST_WARMUP,
        on_failure=BenchmarkedArtifact.fail,
        on_progress=on_progress,
    )


def calls_of(rows: Sequence[Row], runs: int, batch: int) -> list[Call]:
    """The inputs of `runs` calls, spread evenly over the data."""
    pairs = [(row.input, row.fields) for row in spread_rows(rows, runs * batch)]
    return [pairs[first : first + batch] for first in range(0, len(pairs), batch)]


class BenchmarkedArtifact(FailureIsolated):
    """One artifact in a run: its process, its measurements and its failure, if any.

    Methods raise EngineMissingError or EngineFailedError.
    """

    def __init__(self, name: str, artifact: Artifact, threads: int) -> None:
        self.name = name
        self.accuracy: Accuracy | None = None
        self._artifact = artifact
        self._threads = threads
        self._model: RemoteModel | None = None
        self._samples: dict[Case, Samples] = {}
        self._load_ms = self._cold_start_ms = 0.0

    @property
    def manifest(self) -> Manifest:
        """Of the artifact."""
        return self._artifact.manifest

    def start(self, row: Row) -> None:
        """Load the artifact in a separate process, and answer once."""
        self._model = RemoteModel(self._artifact, self._threads)
        self._load_ms = self._model.load_ms
        self._model.generate([row.input], fields=[row.fields], on_long="truncate")
        self._cold_start_ms = self._model.age_ms

    def time_calls(
        self, case: Case, calls: Sequence[Call], new_tokens: int | None, warmup: int
    ) -> float:
        """Time these calls after `warmup` untimed ones, keep the times, and return the seconds."""
        assert self._model
        found = self._model.time_calls(
            calls, concurrency=case.concurrency, new_tokens=new_tokens, warmup=warmup
        )
        self._samples.setdefault(case, Samples()).add(found)
        return float(found["seconds"])

    def times_ms(self, case: Case) -> list[float]:
        """Milliseconds of every timed call so far."""
        samples = self._samples.get(case)
        return samples.ms if samples else []

    def score(self, rows: Sequence[Row], on_progress: Callable[[int], None]) -> None:
        """Measure the accuracy on `rows`; `on_progress` is called with the rows done."""
        # A RemoteModel has those methods of `Model` that are used.
        self.accuracy = measure_accuracy(cast(Model, self._model), rows, on_progress)

    def result(self, case: Case, target_ms: float, unmeasured: str = "not measured") -> Result:
        """The result for `case`. If the engine failed later, there is a latency but no verdict."""
        samples = self._samples.get(case)
        latency: Latency | None = None
        error = self.failure or (None if samples else unmeasured)
        verdict = Verdict("not shown", error or "")
        if samples:
            latency = samples.summary(
                batch=case.batch, load_ms=self._load_ms, cold_start_ms=self._cold_start_ms
            )
            if error is None:
                verdict = judge(samples.ms, target_ms)
        manifest = self.manifest
        return Result(
            artifact=self.name,
            format=manifest.format,
            quantization=manifest.quantization,
            size_mb=manifest.size / 1e6,
            threads=self._threads,
            batch=case.batch,
            concurrency=case.concurrency,
            error=error,
            accuracy=self.accuracy,
            latency=latency,
            verdict=verdict.word,
            verdict_reason=verdict.reason,
        )

    def close(self) -> None:
        """End the artifact's process."""
        if self._model is not None:
            self._model.close()
            self._model = None


def _results(
    benchmarked: Sequence[BenchmarkedArtifact],
    cases: Sequence[Case],
    target_ms: float,
    unmeasured: str = "not measured",
) -> list[Result]:
    return [one.result(case, target_ms, unmeasured) for one in benchmarked for case in cases]
