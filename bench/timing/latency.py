"""How long an answer takes and what of: the figures of many timed calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.runtime.rows import Row

MIN_RUNS = 30
DEFAULT_RUNS = 100  # the verdict on a target needs 90 (see `edge.bench.timing.verdict`)
_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True)
class Latency:
    """Milliseconds from text to text of `runs` calls, greedy; what is no percentile is a median.

    `tokenize_ms` and `detokenize_ms` are inside of the samples. `first_token_ms` is a whole call
    with answers of one token; `per_token_ms` what each further token of the longest answer adds;
    `encode_ms` what is left of the first token's time without a decoder step: all that happens once
    per answer. These two are None where no answer was long enough to tell. `new_tokens` is the mean
    per answer, eos counted; `tokens_per_second` counts all answers of all threads. `cold_start_ms`
    is from the start of the process to its first answer, files in the page cache; `peak_rss_mb`
    (10⁶ bytes) is the most that the process had resident, interpreter and libraries included.
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


class Samples:
    """The turns of one artifact at one batch size and concurrency."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self.seconds = 0.0
        self._peak_rss = 0

    def __len__(self) -> int:
        return len(self._values.get("ms", ()))

    def add(self, turn: Mapping[str, Any]) -> None:
        """Take in a turn as its process gave it (`edge.bench.timing.timed_calls`), with its `peak_rss`."""
        for name, value in turn.items():
            if isinstance(value, list):
                self._values.setdefault(name, []).extend(value)
        self.seconds += turn["seconds"]
        self._peak_rss = max(self._peak_rss, turn["peak_rss"])

    @property
    def ms(self) -> list[float]:
        return self._values["ms"]

    def summary(self, *, batch: int, load_ms: float, cold_start_ms: float) -> Latency:
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
        )


def _phases(found: Mapping[str, np.ndarray]) -> tuple[float | None, float | None]:
    """Milliseconds per further token, and of what happens once per answer.

    The same call was timed with answers of one token; the difference is the other tokens' cost.
    """
    longer = found["longest"] > 1
    if not longer.any():
        return None, None
    further = found["generate_ms"] - found["first_generate_ms"]
    per_token = _median(further[longer] / (found["longest"][longer] - 1))
    encode = _median(found["first_generate_ms"]) - per_token
    # Where noise is larger than either, there is nothing to say.
    return (per_token, encode if encode > 0 else None) if per_token > 0 else (None, None)


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def spread_rows(rows: Sequence[Row], runs: int) -> list[Row]:
    """`runs` rows taken evenly over the data, repeating where there are fewer."""
    if len(rows) >= runs:
        return [rows[i * len(rows) // runs] for i in range(runs)]
    return [rows[i % len(rows)] for i in range(runs)]
