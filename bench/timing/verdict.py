"""Does a latency meet its target? Said only where the runs show it.

A run is above the target or it is not, so the runs above follow a binomial distribution. "p95 is at
most the target" says that at most 5 % of all runs ever are above; the exact binomial test (Clopper
and Pearson, 1934) tells whether what was seen shows that, or its opposite, at 99 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_SHARE = 0.05  # of the runs that may be above: the target is for p95
_RISK = 0.01  # of saying what is not so
# More times the runs than this is no advice.
_MOST = 100

Word = Literal["meets", "misses", "not shown"]
MEETS, MISSES = "meets", "misses"


@dataclass(frozen=True)
class Verdict:
    """One of three words, and why in a sentence."""

    word: Word
    reason: str


def judge(times_ms: Sequence[float], target_ms: float) -> Verdict:
    """Whether p95 ≤ `target_ms` is shown, or the opposite is, or neither.

    It takes at least 90 runs with none above the target, 130 with one, 165 with two.
    """
    runs = len(times_ms)
    above = int(np.count_nonzero(np.asarray(times_ms) > target_ms))
    counted = f"{above} of {runs} runs above {target_ms:g} ms"
    if shows_met(above, runs):
        return Verdict("meets", f"{counted}: p95 is within, at 99 % confidence")
    if shows_missed(above, runs):
        return Verdict("misses", f"{counted}: p95 is above, at 99 % confidence")
    more = more_runs(above, runs)
    if more is None:
        return Verdict("not shown", f"{counted}: p95 is too near the target to tell")
    share = "with none above" if above == 0 else "at this share"
    return Verdict("not shown", f"{counted}: about {more} more runs {share} would show it")


def shows_met(above: int, runs: int) -> bool:
    """So few above would be a rare accident if more than 5 % of all runs were."""
    return runs > 0 and at_most(above, runs) <= _RISK


def shows_missed(above: int, runs: int) -> bool:
    """So many above would be a rare accident if no more than 5 % of all runs were."""
    return above > 0 and 1.0 - at_most(above - 1, runs) <= _RISK


def more_runs(above: int, runs: int) -> int | None:
    """About how many more runs would show it either way, should the same share of them be above;
    None if far too many."""

    def shown(total: int) -> bool:
        likely = above / runs * total if runs else 0.0
        return shows_met(math.ceil(likely), total) or shows_missed(math.floor(likely), total)

    few, many = runs, max(_MOST * runs, _MOST)
    if not shown(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if shown(middle) else (middle, many)
    return many - runs


def at_most(count: int, runs: int, share: float = _SHARE) -> float:
    """The probability of `count` or fewer of `runs`, each with probability `share`.

    In logarithms, term after term: neither large counts nor many runs overflow.
    """
    log_term = runs * math.log1p(-share)
    log_odds = math.log(share) - math.log1p(-share)
    terms = [math.exp(log_term)]
    for index in range(min(count, runs)):
        log_term += math.log((runs - index) / (index + 1)) + log_odds
        terms.append(math.exp(log_term))
    return min(1.0, math.fsum(terms))
