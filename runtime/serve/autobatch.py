"""Measurement of the batch size that gives an engine its best throughput on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge.runtime.model import Model

_TEXT = "what is the name of the long river that runs through the old town and who built the bridge"
_SIZES = (1, 2, 4, 8, 16)
_NEW_TOKENS = 12
_REPEATS = 3
# Every request in a batch waits for the slowest one, so a batch must be at least this much faster
# per text than single texts.
_MIN_SPEEDUP = 1.15
_TIME_LIMIT_S = 3.0


@dataclass(frozen=True)
class BatchMeasurement:
    """The batch size to use, and the seconds per text at that size."""

    batch_size: int
    seconds_per_text: float


def measure_batch_size(model: Model, *, max_size: int | None = None) -> BatchMeasurement:
    """Warm up the engine and time several batch sizes, each by the best of three runs.

    Args:
        model: The model to measure.
        max_size: The largest size to try; 1 only warms up.

    Raises:
        EdgeError: The engine failed.
    """
    limit, new = model.limits.max_input_tokens, min(_NEW_TOKENS, model.limits.max_new_tokens)
    ids = model.tokenizer.encode([_TEXT])[0][-limit:]
    options = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": 1, "do_sample": False}
    options |= {"num_return_sequences": 1}

    def seconds_per_text(size: int) -> float:
        started = time.perf_counter()
        model.generate_tokens([ids] * size, batch_size=size, **options)
        return (time.perf_counter() - started) / size

    began = time.perf_counter()
    seconds_per_text(1)  # the first run includes one-time loading and allocation
    best = BatchMeasurement(1, min(seconds_per_text(1) for _ in range(_REPEATS)))
    single = best.seconds_per_text
    for size in _SIZES[1:]:
        out_of_time = time.perf_counter() - began > _TIME_LIMIT_S
        if out_of_time or (max_size is not None and size > max_size):
            break
        seconds = min(seconds_per_text(size) for _ in range(_REPEATS))
        if seconds * _MIN_SPEEDUP < single and seconds * 1.05 < best.seconds_per_text:
            best = BatchMeasurement(size, seconds)
    return best
