"""Batches of the engine benchmark: their results, their number of runs and their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.bench.engines.step_time import step_ms
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import UsageError
from edge.runtime.platform.memory import free_memory

_MIN_RUNS = 5
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class BatchSpeed:
    """How fast an engine answers one batch after the other; times in milliseconds.

    Attributes:
        batch: sources in a batch.
        threads: that the engine computes with.
        p5: percentile of whole batches, as `p50` and `p95`.
        answers_per_second: batch ÷ p50.
        step_ms: a decoder step of all rows: the median cost of each token after the first.
        times_ms: every batch.
        failure: why it was not measured; then the times are 0.
    """

    batch: int
    threads: int = 0
    p5: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    answers_per_second: float = 0.0
    step_ms: float = 0.0
    times_ms: tuple[float, ...] = ()
    failure: str = ""


def batch_speed(
    batch: int, threads: int, times_ms: Sequence[float], first_ms: Sequence[float], new_tokens: int
) -> BatchSpeed:
    """The speed of batches of answers of `new_tokens` tokens.

    Args:
        batch: sources in a batch.
        threads: that the engine computes with.
        times_ms: of each batch.
        first_ms: of each batch of answers of one token.
        new_tokens: length of each answer.
    """
    p5, p50, p95 = (float(value) for value in np.percentile(times_ms, (5, 50, 95)))
    step = step_ms(p50, float(np.median(first_ms)), new_tokens)
    times = tuple(round(value, 4) for value in times_ms)
    return BatchSpeed(batch, threads, p5, p50, p95, batch / p50 * 1000, step, times)


def batch_runs(batch: int, runs: int) -> int:
    """How many batches are timed: about `runs` answers, at least five batches."""
    return max(_MIN_RUNS, -(-runs // batch))


def batch_bytes(shape: Architecture, batch: int, input_tokens: int, new_tokens: int) -> int:
    """Bytes that an engine needs for a batch, besides the weights: an estimate in float32.

    Counted: keys and values of all decoder layers and a copy of them, one encoder layer's
    activations and attention scores, and the logits twice.
    """
    width, inner = shape.d_model, shape.inner_dim
    cached = shape.num_decoder_layers * 2 * inner * (input_tokens + new_tokens)
    activations = input_tokens * (4 * inner + 3 * shape.d_ff + 4 * width)
    scores = 2 * shape.num_heads * input_tokens**2
    numbers = 2 * cached + activations + scores + 2 * shape.vocab_size
    return batch * numbers * _FLOAT_BYTES


def check_batches(
    name: str,
    shape: Architecture,
    batches: Sequence[int],
    *,
    input_tokens: int,
    new_tokens: int,
    free: int | None = None,
) -> None:
    """Check that the largest batch fits into memory, before any work.

    Args:
        name: of the model, for the message.
        shape: of the model.
        batches: sizes that will be measured.
        input_tokens: length of each input.
        new_tokens: length of each answer.
        free: bytes; None asks the system.

    Raises:
        UsageError: it does not fit.
    """
    largest = max(batches, default=0)
    needed = batch_bytes(shape, largest, input_tokens, new_tokens)
    available = free_memory() if free is None else free
    if needed > available:
        raise UsageError(
            f"--batch {largest} needs about {needed / 1e9:.1f} GB with {name}, and"
            f" {available / 1e9:.1f} GB are free; use a smaller batch"
        )
