"""Verdicts on a latency target agree with the exact binomial test."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from edge.bench.timing.verdict import binomial_cdf, judge, more_runs


def _exact(count: int, runs: int) -> float:
    ratio = Fraction(1, 20)
    terms = (math.comb(runs, k) * ratio**k * (1 - ratio) ** (runs - k) for k in range(count + 1))
    return float(sum(terms, Fraction()))


@pytest.mark.parametrize(("count", "runs"), [(0, 90), (1, 130), (2, 165), (7, 90), (30, 400)])
def test_the_probability_is_the_binomial_sum(count: int, runs: int) -> None:
    assert binomial_cdf(count, runs) == pytest.approx(_exact(count, runs), rel=1e-9)


def test_many_runs_do_not_overflow() -> None:
    assert binomial_cdf(100_000, 100_000) == pytest.approx(1.0)
    assert binomial_cdf(1000, 100_000) < 1e-300


@pytest.mark.parametrize(("above", "fewest"), [(0, 90), (1, 130), (2, 165)])
def test_so_many_runs_show_that_the_target_is_met(above: int, fewest: int) -> None:
    for runs, word in ((fewest, "meets"), (fewest - 1, "not shown")):
        times = [101.0] * above + [50.0] * (runs - above)
        assert judge(times, 100.0).word == word
    # At the target is met.
    assert judge([100.0] * 90, 100.0).word == "meets"


def test_the_opposite_is_shown_as_well() -> None:
    assert judge([101.0] * 30, 100.0).word == "misses"
    assert judge([101.0] * 12 + [50.0] * 88, 100.0).word == "misses"
    # 8 of 100 are more than 5 %, but may be so by chance.
    assert judge([101.0] * 8 + [50.0] * 92, 100.0).word == "not shown"


def test_what_is_not_shown_says_how_many_more_runs_would_show_it() -> None:
    verdict = judge([50.0] * 30, 100.0)
    assert verdict.word == "not shown"
    assert verdict.reason == (
        "0 of 30 runs above 100 ms: about 60 more runs with none above would decide it"
    )
    assert more_runs(0, 30) == 60
    # One of 100 above: at this ratio there are two above when 165 runs show it.
    assert more_runs(1, 100) == 65
    assert more_runs(8, 100) is not None  # toward "misses"
    assert more_runs(5, 100) is None  # exactly at the border
    assert "too close to the target" in judge([101.0] * 5 + [50.0] * 95, 100.0).reason
