"""Difference between two samples of times: Mann-Whitney test and Hodges-Lehmann shift.

scipy has both, but nothing else here needs its 100 MB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95  # of the interval
_MAX_SAMPLE = 2000  # of each sample; the shift takes the median of all pairs


@dataclass(frozen=True)
class Shift:
    """How much later one sample is than another.

    Attributes:
        ms: The median of all differences, new less old, in milliseconds (Hodges and Lehmann, 1963).
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_slower: One-sided p-value of "new is slower" (Mann and Whitney, 1947).
        p_faster: One-sided p-value of "new is faster".
    """

    ms: float
    low: float
    high: float
    p_slower: float
    p_faster: float


def shift(old: Sequence[float], new: Sequence[float]) -> Shift:
    """Compare two samples of times in milliseconds, at least one of each.

    The p-values are from the normal approximation with corrections for ties and continuity, which
    is close from 20 values on. The interval is that of Hollander and Wolfe ("Nonparametric
    Statistical Methods", 4.3). Of samples above 2,000 values it takes an evenly spaced part.
    """
    before, after = np.asarray(old, float), np.asarray(new, float)
    differences = np.sort(np.subtract.outer(_part(after), _part(before)), axis=None)
    first, second = min(len(after), _MAX_SAMPLE), min(len(before), _MAX_SAMPLE)
    spread = math.sqrt(first * second * (first + second + 1) / 12)
    quantile = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rank = max(1, math.floor(first * second / 2 - quantile * spread))
    return Shift(
        ms=float(np.median(differences)),
        low=float(differences[rank - 1]),
        high=float(differences[-rank]),
        p_slower=mann_whitney(before, after),
        p_faster=mann_whitney(after, before),
    )


def mann_whitney(low: np.ndarray, high: np.ndarray) -> float:
    """The one-sided p-value of "values of `high` are larger than those of `low`".

    Args:
        low: One sample [n], in any order.
        high: The other sample [m].
    """
    n, m = len(low), len(high)
    ordered = np.sort(low)
    # Pairs in which `high` is larger; ties count one half.
    below = np.searchsorted(ordered, high, "left").sum()
    up_to = np.searchsorted(ordered, high, "right").sum()
    pairs = (int(below) + int(up_to)) / 2
    _, ties = np.unique(np.concatenate([low, high]), return_counts=True)
    total = n + m
    tied = float((ties.astype(float) ** 3 - ties).sum()) / (total * (total - 1)) if total > 1 else 0
    variance = n * m / 12 * (total + 1 - tied)
    if variance <= 0:
        return 1.0  # all values are equal
    return 1 - NormalDist().cdf((pairs - n * m / 2 - 0.5) / math.sqrt(variance))


def _part(values: np.ndarray) -> np.ndarray:
    if len(values) <= _MAX_SAMPLE:
        return values
    places = np.linspace(0, len(values) - 1, _MAX_SAMPLE).round().astype(int)
    part: np.ndarray = values[places]
    return part
