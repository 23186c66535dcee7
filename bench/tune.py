"""Search for the thread count and engine settings that are fastest on this machine.

The engine's class lists the candidates (`Engine.tunable`). If there are many, each is screened
alone, and the fastest are then timed interleaved.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.thread_numbers import checked_threads, thread_numbers
from edge.bench.timing.interleaved import Turn, garbage_collection_paused, time_interleaved
from edge.bench.timing.latency import MIN_RUNS, artificial_ids, check_runs, spread_rows
from edge.bench.timing.machine import machine_info
from edge.bench.tune_drafts import DraftTuning, load_arguments, measure_drafts
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import replace_runtime
from edge.runtime.engines import ENGINES
from edge.runtime.inference.adaptive_drafts import DraftSettings
from edge.runtime.model import Model, load
from edge.runtime.platform.cpu import physical_cores
from edge.runtime.rows import Row

INPUT_TOKENS = 32  # of an input without data: about a question and its prompt
NEW_TOKENS = 16
_INPUTS = 8  # taken from the data
_SCREENING_TURN = Turn(first=0, count=6, warmup=1)  # of a candidate, in each of two passes
_FINALISTS = 3  # besides the simplest candidate; all are loaded at once
_TURN = 3  # timed answers of a candidate before the next has its turn
_MIN_SPEEDUP = 1.05  # by which more threads are worth it

Settings = dict[str, Any]
# Called with (phase, done, total); the phase is "screening" or "confirming".
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """Settings, and the median and quartiles of their `runs` timed answers in milliseconds."""

    settings: Settings
    runs: int
    p25: float
    p50: float
    p75: float

    @classmethod
    def of(cls, settings: Settings, times: np.ndarray) -> Candidate:
        """The candidate with the statistics of `times`, milliseconds [runs]."""
        p25, p50, p75 = (round(float(ms), 3) for ms in np.percentile(times, (25, 50, 75)))
        return cls(settings, len(times), p25, p50, p75)


@dataclass(frozen=True)
class Tuning:
    """The chosen settings and what was measured.

    Attributes:
        chosen: the settings.
        candidates: those that were timed interleaved.
        screened: those that were dropped after the screening.
        input_tokens: median of the inputs.
        new_tokens: exact length of the answers.
        machine: see `edge.bench.timing.machine`.
        created: ISO 8601, UTC.
        drafts: what drafts from the input gain; None without rows, or if the engine has none.
    """

    chosen: Settings
    candidates: list[Candidate]
    screened: list[Candidate]
    input_tokens: int
    new_tokens: int
    machine: dict[str, Any]
    created: str
    drafts: DraftTuning | None = None

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
    trust_code: bool = False,
    on_progress: Progress | None = None,
) -> Tuning:
    """Find an artifact's fastest settings and store them in its manifest.

    Args:
        folder: the artifact.
        rows: inputs of realistic length, on which drafts from the input are measured, too; None
            takes one input of 32 tokens.
        threads: the numbers of threads to try; None tries up to the number of physical cores.
        runs: timed answers of each candidate.
        trust_code: see `edge.runtime.load`.
        on_progress: called with phase, done and total.

    Raises:
        UsageError: fewer than 30 runs, or more threads than this machine has cores.
        ArtifactError: the artifact can't be loaded.
        MissingExtraError: the engine's library is not installed.
        EdgeError: the manifest can't be written; it is left unchanged.
    """
    tuning = measure_settings(
        folder,
        rows=rows,
        threads=threads,
        runs=runs,
        trust_code=trust_code,
        on_progress=on_progress,
    )
    store_settings(folder, tuning)
    return tuning


def measure_settings(
    folder: str | Path,
    *,
    rows: Sequence[Row] | None = None,
    threads: Sequence[int] | None = None,
    runs: int = MIN_RUNS,
    trust_code: bool = False,
    on_progress: Progress | None = None,
) -> Tuning:
    """Like `tune`, without storing anything."""
    check_runs(runs)
    manifest = Artifact.open(folder).manifest
    numbers = checked_threads(threads) if threads else thread_numbers(physical_cores())
    settings = ENGINES.load(manifest.format).tunable(numbers)
    new_tokens = min(NEW_TOKENS, manifest.limits.max_new_tokens)
    open_model = partial(load, folder, trust_code=trust_code)
    # What is stored may be malformed, which tuning repairs.
    with open_model(**load_arguments(settings[0])) as model:
        inputs = _inputs(model, rows)
    notify = on_progress or (lambda *_: None)
    timer = _CandidateTimer(open_model, inputs, new_tokens, runs, notify)
    finalists, screened = timer.screen(settings)
    times = timer.confirm(finalists)
    chosen = finalists[choose(times)]
    drafts = measure_drafts(folder, rows, chosen, runs, trust_code=trust_code) if rows else None
    return Tuning(
        chosen=chosen,
        candidates=[Candidate.of(*pair) for pair in zip(finalists, times, strict=True)],
        screened=screened,
        input_tokens=int(np.median([len(ids) for ids in inputs])),
        new_tokens=new_tokens,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        drafts=drafts,
    )


def store_settings(folder: str | Path, tuning: Tuning) -> None:
    """Write the chosen settings and what was measured into the artifact's manifest, atomically."""
    runtime = dict(Artifact.open(folder).manifest.runtime)
    runtime |= {**tuning.chosen, "tuned": tuning.as_manifest()}
    if tuning.drafts is not None:
        runtime["drafts"] = tuning.drafts.as_manifest()
    elif not DraftSettings.are_valid(runtime.get("drafts", {})):
        del runtime["drafts"]
    replace_runtime(folder, runtime)


def choose(times: np.ndarray) -> int:
    """The index of the candidate to use, from milliseconds [candidates, runs], simplest first.

    It is the first candidate that the fastest does not clearly beat. It clearly beats one if it is
    faster by more than 5 % in the median of the runs, and faster at all in three runs of four.
    """
    fastest = int(np.median(times, axis=1).argmin())
    for place, candidate in enumerate(times):
        ratios = candidate / times[fastest]
        if np.median(ratios) <= _MIN_SPEEDUP or np.percentile(ratios, 25) <= 1.0:
            return place
    return fastest


class _CandidateTimer:
    """Times candidates of one artifact on the same inputs."""

    def __init__(
        self,
        open_model: Callable[..., Model],
        inputs: Sequence[Sequence[int]],
        new_tokens: int,
        runs: int,
        on_progress: Progress,
    ) -> None:
        self._open = open_model
        self._inputs = inputs
        self._length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
        self._runs = runs
        self._on_progress = on_progress

    def screen(self, settings: list[Settings]) -> tuple[list[Settings], list[Candidate]]:
        """Return the simplest and the fastest in the order given, and the statistics of the rest.

        One at a time is loaded. The second pass goes backwards, so that a machine that slows down
        does not favor the first candidates.
        """
        if len(settings) <= _FINALISTS + 1:
            return settings, []
        times: dict[int, list[float]] = {place: [] for place in range(len(settings))}
        order = [*times, *reversed(times)]
        for done, place in enumerate(order, start=1):
            with self._load(settings[place]) as model:
                times[place] += self._time(model, _SCREENING_TURN)
            self._on_progress("screening", done, len(order))
        ranking = sorted(times, key=lambda place: float(np.median(times[place])))
        kept = sorted({0, *ranking[:_FINALISTS]})
        rest = [Candidate.of(settings[p], np.array(times[p])) for p in times if p not in kept]
        return [settings[place] for place in kept], rest

    def confirm(self, settings: list[Settings]) -> np.ndarray:
        """Milliseconds [candidates, runs], timed interleaved."""
        times: list[list[float]] = [[] for _ in settings]
        with contextlib.ExitStack() as stack:
            models = [stack.enter_context(self._load(one)) for one in settings]

            def time_turn(place: int, turn: Turn) -> float:
                found = self._time(models[place], turn)
                times[place] += found
                return sum(found) / 1000

            time_interleaved(
                range(len(models)),
                time_turn,
                runs=self._runs,
                turn_length=_TURN,
                on_progress=lambda done: self._on_progress("confirming", done, self._runs),
            )
        return np.array(times)

    def _load(self, settings: Settings) -> Model:
        return self._open(**load_arguments(settings))

    def _time(self, model: Model, turn: Turn) -> list[float]:
        """Milliseconds of each answer of a turn."""
        for _ in range(turn.warmup):
            self._answer(model, turn.first)
        with garbage_collection_paused():
            return [self._time_one(model, turn.first + index) for index in range(turn.count)]

    def _time_one(self, model: Model, index: int) -> float:
        started = time.perf_counter()
        self._answer(model, index)
        return (time.perf_counter() - started) * 1000

    def _answer(self, model: Model, index: int) -> None:
        ids = self._inputs[index % len(self._inputs)]
        model.generate_tokens(ids, **self._length, prompt_lookup_num_tokens=0)


def _inputs(model: Model, rows: Sequence[Row] | None) -> list[list[int]]:
    """Token ids of inputs spread over the rows, or of one artificial input."""
    if rows:
        chosen = spread_rows(rows, min(_INPUTS, len(rows)))
        return model.encode(
            [row.input for row in chosen],
            fields=[row.fields for row in chosen],
            on_long="truncate",
        )[0]
    return [artificial_ids(model, INPUT_TOKENS)]
