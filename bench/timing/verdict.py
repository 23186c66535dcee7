"""Verdict on a latency target, given only if the timed runs support it statistically.

A run is above the target or it is not, so the number of runs above it is binomially distributed.
"p95 is at most the target" says that at most 5 % of all runs are above it. The exact binomial test
(Clopper and Pearson, 1934) decides whether the runs show that, or its opposite, with 99 %
confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.runtime.errors import UsageError

_RATIO_ABOVE = 0.05  # of the runs may be above the target: it is a target for p95
_ERROR_PROBABILITY = 0.01  # of a wrong "meets" or "misses"
FEWEST_RUNS = 90  # that can show a met target, with none above it
_MAX_MORE_RUNS = 100  # times the runs so far; a suggestion beyond that would be useless

Word = Literal["meets", "misses", "not shown"]
MEETS, MISSES = "meets", "misses"


@dataclass(frozen=True)
class Verdict:
    """The verdict in one word, and the reason in a sentence."""

    word: Word
    reason: str


def check_target(target_ms: float) -> None:
    """Refuse a target that is not a time.

    Raises:
        UsageError: not a finite number above 0.
    """
    if not 0 < target_ms < math.inf:
        raise UsageError(f"--target-ms must be a finite number above 0, not {target_ms:g}")


def judge(times_ms: Sequence[float], target_ms: float) -> Verdict:
    """Decide whether p95 ≤ `target_ms`, with 99 % confidence: "meets", "misses" or "not shown".

    "meets" takes at least 90 runs with none above the target, 130 with one, 165 with two.
    """
    runs = len(times_ms)
    above = int(np.count_nonzero(np.asarray(times_ms) > target_ms))
    counted = f"{above} of {runs} runs above {target_ms:g} ms"
    if shows_met(above, runs):
        return Verdict("meets", f"{counted}: p95 meets the target with 99 % confidence")
    if shows_missed(above, runs):
        return Verdict("misses", f"{counted}: p95 misses the target with 99 % confidence")
    more = more_runs(above, runs)
    if more is None:
        return Verdict("not shown", f"{counted}: p95 is too close to the target")
    ratio = "with none above" if above == 0 else "at this ratio"
    return Verdict("not shown", f"{counted}: about {more} more runs {ratio} would decide it")


def shows_met(above: int, runs: int) -> bool:
    """Whether so few runs above the target are unlikely if more than 5 % of all runs are above."""
    return runs > 0 and binomial_cdf(above, runs) <= _ERROR_PROBABILITY


def shows_missed(above: int, runs: int) -> bool:
    """Whether so many runs above the target are unlikely if at most 5 % of all runs are above."""
    return above > 0 and 1.0 - binomial_cdf(above - 1, runs) <= _ERROR_PROBABILITY


def more_runs(above: int, runs: int) -> int | None:
    """About how many more runs decide it, if the same ratio of them is above the target.

    None if it takes more than 100 times the runs so far.
    """

    def decided(total: int) -> bool:
        expected = above / runs * total if runs else 0.0
        return shows_met(math.ceil(expected), total) or shows_missed(math.floor(expected), total)

    few, many = runs, max(_MAX_MORE_RUNS * runs, _MAX_MORE_RUNS)
    if not decided(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decided(middle) else (middle, many)
    return many - runs


def binomial_cdf(count: int, runs: int, probability: float = _RATIO_ABOVE) -> float:
    """The probability of at most `count` successes in `runs` trials of this `probability`.

    Summed term by term in logarithms, so that large numbers do not overflow.
    """
    log_term = runs * math.log1p(-probability)
    log_odds = math.log(probability) - math.log1p(-probability)
    terms = [math.exp(log_term)]
    for index in range(min(count, runs)):
        log_term += math.log((runs - index) / (index + 1)) + log_odds
        terms.append(math.exp(log_term))
    return min(1.0, math.fsum(terms))
