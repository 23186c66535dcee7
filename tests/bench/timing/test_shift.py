"""The Mann-Whitney test and the Hodges-Lehmann shift, against published and exact values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge.bench.timing.shift import mann_whitney, shift


def test_p_values_are_close_to_the_exact_ones() -> None:
    """All assignments of 12 different values to two samples of 6, counted."""
    values = np.arange(12.0)
    statistics = [sum(values[list(high)]) for high in itertools.combinations(range(12), 6)]
    for high in ((3, 5, 7, 9, 10, 11), (0, 2, 5, 6, 9, 11), (4, 6, 8, 9, 10, 11)):
        low = sorted(set(range(12)) - set(high))
        exact = np.mean(np.array(statistics) >= values[list(high)].sum())
        assert mann_whitney(values[low], values[list(high)]) == pytest.approx(exact, abs=0.006)


def test_the_example_of_hollander_and_wolfe() -> None:
    """Permeability of the human chorioamnion, their example 4.1: shift 0.305, p about 0.12."""
    at_term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    earlier = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = shift(earlier, at_term)
    assert found.ms == pytest.approx(0.305)
    assert found.p_slower == pytest.approx(0.1272, abs=0.012)
    assert found.low < 0 < found.high


def test_false_alarms_and_intervals_have_their_rates() -> None:
    """1,000 pairs of skewed samples, shifted by 1: 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = alarms = 0
    for _ in range(1000):
        old, new = rng.lognormal(size=60), rng.lognormal(size=60)
        alarms += shift(old, new).p_slower < 0.05
        found = shift(old, new + 1)
        covered += found.low <= 1 <= found.high
    assert 30 <= alarms <= 70
    assert 930 <= covered <= 970


def test_equal_values_and_long_samples() -> None:
    same = shift([2.0] * 30, [2.0] * 30)
    assert (same.ms, same.low, same.high, same.p_slower, same.p_faster) == (0, 0, 0, 1, 1)
    one = shift([1.0], [3.0])
    assert (one.ms, one.low, one.high) == (2, 2, 2)
    times = np.linspace(10, 20, 100_000)
    long = shift(times, times + 1)
    assert long.ms == pytest.approx(1, abs=0.02)
    assert long.low < 1 < long.high
    assert long.p_slower < 1e-9
