"""How long one answer takes: interleaved runs, so that a noisy moment hits every artifact alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.runtime.model import Model
from edge.runtime.rows import Row

MIN_RUNS = 30


@dataclass(frozen=True)
class Latency:
    """Milliseconds from text to text, batch 1, greedy, to each answer's natural end.

    `p25` and `p75` are the spread beside the median; `new_tokens` is the mean length of an answer.
    """

    runs: int
    p25: float
    p50: float
    p75: float
    p95: float
    new_tokens: float


def measure_latency(
    models: Sequence[Model],
    rows: Sequence[Row],
    *,
    runs: int,
    warmup: int = 3,
    on_progress: Callable[[int], None] | None = None,
) -> list[Latency]:
    """Time every model on the same rows, one row at a time, models taking turns.

    The garbage collector is held off during each timed call, and run between rounds.
    """
    chosen = spread_rows(rows, runs)
    for row in chosen[:warmup]:
        for model in models:
            _answer(model, row)
    times = np.empty((len(models), runs))
    lengths = np.empty((len(models), runs))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for run, row in enumerate(chosen):
            # Another model starts each round: none always follows the same neighbour.
            for turn in range(len(models)):
                place = (run + turn) % len(models)
                started = time.perf_counter()
                length = _answer(models[place], row)
                times[place, run] = (time.perf_counter() - started) * 1000
                lengths[place, run] = length
            gc.collect(0)
            if on_progress:
                on_progress(run + 1)
    finally:
        if collecting:
            gc.enable()
    return [_summary(row, float(length.mean())) for row, length in zip(times, lengths, strict=True)]


def _summary(times: np.ndarray, new_tokens: float) -> Latency:
    p25, p50, p75, p95 = (float(value) for value in np.percentile(times, (25, 50, 75, 95)))
    return Latency(len(times), p25, p50, p75, p95, new_tokens)


def spread_rows(rows: Sequence[Row], runs: int) -> list[Row]:
    """`runs` rows taken evenly over the data, repeating where there are fewer."""
    if len(rows) >= runs:
        return [rows[i * len(rows) // runs] for i in range(runs)]
    return [rows[i % len(rows)] for i in range(runs)]


def _answer(model: Model, row: Row) -> int:
    answer = model.generate(
        row.input, fields=row.fields, on_long="truncate", num_beams=1, do_sample=False
    )
    return len(answer.token_ids) + (answer.finish_reason == "eos")
