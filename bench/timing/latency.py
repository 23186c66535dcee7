"""Latency statistics of many timed calls: percentiles, phases, throughput and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.runtime.errors import UsageError
from edge.runtime.model import Model
from edge.runtime.rows import Row

MIN_RUNS = 30  # for a median
DEFAULT_RUNS = 100  # a verdict needs at least 90 (see `edge.bench.timing.verdict`)
_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


def check_runs(runs: int) -> None:
    """Refuse fewer timed runs than a median needs.

    Raises:
        UsageError: fewer than 30.
    """
    if runs < MIN_RUNS:
        raise UsageError(f"--runs must be at least {MIN_RUNS}, not {runs}: a median needs them")


@dataclass(frozen=True)
class Latency:
    """Latency of `runs` greedy calls from text to text; `p5` to `p99` and `*_ms` in milliseconds.

    Attributes:
        runs: timed calls.
        samples_ms: every one of them.
        new_tokens: mean tokens of an answer, eos included.
        tokenize_ms: median; part of the samples.
        encode_ms: median of what happens once per answer: the first token's time without one
            decoder step. None if the answers are too short to estimate it.
        first_token_ms: median of the same calls with answers of one token.
        per_token_ms: median cost of each further token of the longest answer. None if the answers
            are too short to estimate it.
        detokenize_ms: median; part of the samples.
        tokens_per_second: all answers of all threads.
        load_ms: opening the model.
        cold_start_ms: from the start of the process to its first answer, files in the page cache.
        peak_rss_mb: peak resident memory of the process (10⁶ bytes), interpreter and libraries
            included.
        joules_per_answer: energy of the processor's packages per answer, other processes included;
            None if it can't be read.
    """

    runs: int
    samples_ms: tuple[float, ...]
    p5: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    new_tokens: float
    tokenize_ms: float
    encode_ms: float | None
    first_token_ms: float
    per_token_ms: float | None
    detokenize_ms: float
    tokens_per_second: float
    load_ms: float
    cold_start_ms: float
    peak_rss_mb: float
    joules_per_answer: float | None = None


class Samples:
    """Collects the turns of one artifact at one batch size and concurrency."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self.seconds = 0.0
        self._joules: float | None = 0.0
        self._peak_rss = 0

    def __len__(self) -> int:
        return len(self._values.get("ms", ()))

    def add(self, turn: Mapping[str, Any]) -> None:
        """Add one turn: the fields of `TimedCalls`, and the process's `peak_rss` in bytes."""
        for name, value in turn.items():
            if isinstance(value, list):
                self._values.setdefault(name, []).extend(value)
        self.seconds += turn["seconds"]
        joules = turn["joules"]
        self._joules = None if joules is None or self._joules is None else self._joules + joules
        self._peak_rss = max(self._peak_rss, turn["peak_rss"])

    @property
    def ms(self) -> list[float]:
        """Milliseconds of every call."""
        return self._values["ms"]

    def summary(self, *, batch: int, load_ms: float, cold_start_ms: float) -> Latency:
        """The statistics of all turns; `batch` is the number of texts in a call."""
        found = {name: np.array(values) for name, values in self._values.items()}
        per_token, encode = _phases(found)
        tokens = float(found["new_tokens"].sum())
        spread = np.percentile(found["ms"], _PERCENTILES)
        return Latency(
            runs=len(self),
            samples_ms=tuple(self.ms),
            **{f"p{p}": float(ms) for p, ms in zip(_PERCENTILES, spread, strict=True)},
            new_tokens=tokens / (len(self) * batch),
            tokenize_ms=_median(found["tokenize_ms"]),
            encode_ms=encode,
            first_token_ms=_median(found["first_ms"]),
            per_token_ms=per_token,
            detokenize_ms=_median(found["detokenize_ms"]),
            tokens_per_second=tokens / self.seconds,
            load_ms=load_ms,
            cold_start_ms=cold_start_ms,
            peak_rss_mb=self._peak_rss / 1e6,
            joules_per_answer=None if self._joules is None else self._joules / (len(self) * batch),
        )


def _phases(found: Mapping[str, np.ndarray]) -> tuple[float | None, float | None]:
    """Milliseconds per further token, and of what happens once per answer.

    Each call was also timed with answers of one token; the difference is the cost of the others.
    """
    longer = found["longest"] > 1
    if not longer.any():
        return None, None
    further = found["generate_ms"] - found["first_generate_ms"]
    per_token = _median(further[longer] / (found["longest"][longer] - 1))
    encode = _median(found["first_generate_ms"]) - per_token
    # A value that is not positive is smaller than the noise.
    return (per_token, encode if encode > 0 else None) if per_token > 0 else (None, None)


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def spread_rows(rows: Sequence[Row], runs: int) -> list[Row]:
    """`runs` rows spaced evenly over the data; repeated if there are fewer."""
    if len(rows) >= runs:
        return [rows[i * len(rows) // runs] for i in range(runs)]
    return [rows[i % len(rows)] for i in range(runs)]


def artificial_ids(model: Model, length: int) -> list[int]:
    """Source ids of one input of `length` tokens, or as many as the artifact takes."""
    length = min(length, model.limits.max_input_tokens)
    # Which pieces they are makes no difference to the time.
    ids = [(3 + index * 997) % model.tokenizer.pieces for index in range(length - 1)]
    return [*ids, model.tokenizer.eos]
