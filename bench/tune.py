"""Which thread count and engine settings answer fastest on this machine? Measured, then stored.

The engine's class says what is worth trying (`Engine.tunable`). Where that is much, each is timed
alone first, and the fastest go on; these then take turns, so that a noisy moment hits all alike.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.timing.latency import MIN_RUNS, spread_rows
from edge.bench.timing.machine import machine_info
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import replace_runtime
from edge.runtime.engines import ENGINES
from edge.runtime.errors import UsageError
from edge.runtime.model import Model, load
from edge.runtime.platform.cpu import physical_cores, usable_cores
from edge.runtime.rows import Row

INPUT_TOKENS = 32  # without data: about a question and its prompt
NEW_TOKENS = 16
_INPUTS = 8  # different inputs taken from the data
_SCREENING_RUNS = 6  # timed answers of a candidate in each of two passes
_FINALISTS = 3  # besides the simplest candidate; all are in memory at once
_TURN = 3  # timed answers in a row, after one that brings back what the others displaced
_WORTHWHILE = 1.05  # how many times faster more threads must be

Settings = dict[str, Any]
# Called with (phase, done, of); the phase is "screening" or "confirming".
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """Settings and the milliseconds of their answers: median and quartiles of `runs`."""

    settings: Settings
    runs: int
    p25: float
    p50: float
    p75: float

    @classmethod
    def of(cls, settings: Settings, times: np.ndarray) -> Candidate:
        p25, p50, p75 = (round(float(ms), 3) for ms in np.percentile(times, (25, 50, 75)))
        return cls(settings, len(times), p25, p50, p75)


@dataclass(frozen=True)
class Tuning:
    """What was measured, and the settings chosen. `screened` were given up after a first look."""

    chosen: Settings
    candidates: list[Candidate]
    screened: list[Candidate]
    input_tokens: int  # the median of the inputs
    new_tokens: int
    machine: dict[str, Any]
    created: str

    def as_manifest(self) -> dict[str, Any]:
        """The `tuned` part of the manifest's `runtime` section."""
        return {
            "date": self.created,
            "machine": {name: self.machine[name] for name in ("cpu", "cores", "isa")},
            "input_tokens": self.input_tokens,
            "new_tokens": self.new_tokens,
            "candidates": [
                {
                    **candidate.settings,
                    "runs": candidate.runs,
                    "p25_ms": candidate.p25,
                    "p50_ms": candidate.p50,
                    "p75_ms": candidate.p75,
                }
                for candidate in (*self.candidates, *self.screened)
            ],
        }


def tune(
    folder: str | Path,
    *,
    rows: Sequence[Row] | None = None,
    threads: Sequence[int] | None = None,
    runs: int = MIN_RUNS,
    on_progress: Progress | None = None,
) -> Tuning:
    """Choose an artifact's settings by measurement and store them in its manifest.

    Args:
        folder: the artifact.
        rows: inputs of realistic length; None takes one of 32 tokens.
        threads: the numbers of threads to try; None tries up to the number of physical cores.
        runs: timed answers of each candidate.
        on_progress: gets the phase, what is done in it, and of how much.

    Raises:
        UsageError: fewer runs than a median needs, or threads that this machine has not.
        ArtifactError, MissingExtraError: an artifact that can't be loaded.
        EdgeError: the manifest can't be written; it is then what it was.
    """
    tuning = measure_settings(
        folder, rows=rows, threads=threads, runs=runs, on_progress=on_progress
    )
    store_settings(folder, tuning)
    return tuning


def measure_settings(
    folder: str | Path,
    *,
    rows: Sequence[Row] | None = None,
    threads: Sequence[int] | None = None,
    runs: int = MIN_RUNS,
    on_progress: Progress | None = None,
) -> Tuning:
    """Like `tune`, without storing anything."""
    if runs < MIN_RUNS:
        raise UsageError(f"--runs must be at least {MIN_RUNS}, not {runs}: fewer make no median")
    manifest = Artifact.open(folder).manifest
    numbers = checked_threads(threads) if threads else thread_numbers(physical_cores())
    settings = ENGINES.load(manifest.format).tunable(numbers)
    new_tokens = min(NEW_TOKENS, manifest.limits.max_new_tokens)
    with load(folder, threads=1) as model:
        inputs = _inputs(model, rows)
    measure = _Measure(folder, inputs, new_tokens, runs, on_progress or (lambda *_: None))
    finalists, screened = measure.screen(settings)
    times = measure.confirm(finalists)
    return Tuning(
        chosen=finalists[choose(times)],
        candidates=[Candidate.of(*pair) for pair in zip(finalists, times, strict=True)],
        screened=screened,
        input_tokens=int(np.median([len(ids) for ids in inputs])),
        new_tokens=new_tokens,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def store_settings(folder: str | Path, tuning: Tuning) -> None:
    """Put the chosen settings and what was measured into the artifact's manifest, in one step."""
    runtime = dict(Artifact.open(folder).manifest.runtime)
    replace_runtime(folder, {**runtime, **tuning.chosen, "tuned": tuning.as_manifest()})


def thread_numbers(cores: int) -> list[int]:
    """1 to 4, then steps of a half (6, 8, 12, 16, …), and all of the cores."""
    steps = [1, 2, 3, 4]
    while steps[-1] < cores:
        steps.append(2 * steps[-2])
    return sorted({min(step, cores) for step in steps})


def choose(times: np.ndarray) -> int:
    """Which candidate to take, from milliseconds [candidates, runs], the simplest first.

    Not the fastest, but the first that the fastest does not beat by more than the noise: by 5 % in
    the median of the rounds, and at all in three rounds of four.
    """
    fastest = int(np.median(times, axis=1).argmin())
    for place, own in enumerate(times):
        ratios = own / times[fastest]
        if np.median(ratios) <= _WORTHWHILE or np.percentile(ratios, 25) <= 1.0:
            return place
    return fastest


class _Measure:
    """Times candidates of one artifact on the same inputs."""

    def __init__(
        self,
        folder: str | Path,
        inputs: Sequence[Sequence[int]],
        new_tokens: int,
        runs: int,
        on_progress: Progress,
    ) -> None:
        self._folder = folder
        self._inputs = inputs
        self._length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
        self._runs = runs
        self._on_progress = on_progress

    def screen(self, settings: list[Settings]) -> tuple[list[Settings], list[Candidate]]:
        """The simplest and the fastest of many, in the order given, and the figures of the rest.

        One at a time is in memory. The second pass goes backwards, so that a machine that slows
        down in between does not favor the first.
        """
        if len(settings) <= _FINALISTS + 1:
            return settings, []
        times: dict[int, list[float]] = {place: [] for place in range(len(settings))}
        order = [*times, *reversed(times)]
        for done, place in enumerate(order, start=1):
            with self._load(settings[place]) as model:
                times[place] += self._turn(model, 0, _SCREENING_RUNS)
            self._on_progress("screening", done, len(order))
        ranking = sorted(times, key=lambda place: float(np.median(times[place])))
        kept = sorted({0, *ranking[:_FINALISTS]})
        rest = [Candidate.of(settings[p], np.array(times[p])) for p in times if p not in kept]
        return [settings[place] for place in kept], rest

    def confirm(self, settings: list[Settings]) -> np.ndarray:
        """Milliseconds [candidates, runs] of candidates that take turns."""
        times = np.empty((len(settings), self._runs))
        with contextlib.ExitStack() as stack:
            models = [stack.enter_context(self._load(one)) for one in settings]
            for turn, first in enumerate(range(0, self._runs, _TURN)):
                count = min(_TURN, self._runs - first)
                for place in range(len(models)):
                    # Another candidate starts each round: none always follows the same neighbor.
                    own = (turn + place) % len(models)
                    times[own, first : first + count] = self._turn(models[own], first, count)
                self._on_progress("confirming", first + count, self._runs)
        return times

    def _load(self, settings: Settings) -> Model:
        others = {name: value for name, value in settings.items() if name != "threads"}
        return load(self._folder, threads=settings["threads"], settings=others)

    def _turn(self, model: Model, first: int, count: int) -> list[float]:
        """Milliseconds of `count` answers, input `first` and on, after an untimed one."""
        self._answer(model, first)
        collecting = gc.isenabled()
        gc.disable()
        try:
            return [self._timed(model, first + index) for index in range(count)]
        finally:
            if collecting:
                gc.enable()

    def _timed(self, model: Model, index: int) -> float:
        started = time.perf_counter()
        self._answer(model, index)
        return (time.perf_counter() - started) * 1000

    def _answer(self, model: Model, index: int) -> None:
        model.generate_tokens(self._inputs[index % len(self._inputs)], **self._length)


def _inputs(model: Model, rows: Sequence[Row] | None) -> list[list[int]]:
    """Token ids of inputs spread over the rows, or of one made up."""
    manifest = model.artifact.manifest
    if rows:
        chosen = spread_rows(rows, min(_INPUTS, len(rows)))
        return model.encode(
            [row.input for row in chosen],
            fields=[row.fields for row in chosen],
            on_long="truncate",
        )[0]
    pieces = manifest.tokenizer.pieces
    length = min(INPUT_TOKENS, manifest.limits.max_input_tokens)
    # Spread over the vocabulary: which pieces they are makes no difference to the time.
    ids = [(3 + index * 997) % pieces for index in range(length - 1)]
    return [[*ids, manifest.architecture.eos_token_id]]


def checked_threads(threads: Sequence[int]) -> list[int]:
    """Numbers of threads to try, ascending; more than the cores there are is a UsageError."""
    cores = usable_cores()
    for number in threads:
        if not 1 <= number <= cores:
            raise UsageError(
                f"--threads must be from 1 to the {cores} cores that this process may use,"
                f" not {number}"
            )
    return sorted(set(threads))
