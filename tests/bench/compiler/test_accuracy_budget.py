"""The accuracy budget."""

from __future__ import annotations

import pytest

from edge.bench.compiler.accuracy_budget import AccuracyBudget
from edge.runtime.errors import UsageError

TARGETS = [f"this is the answer of number {n}" for n in range(200)]


def budget(max_drop: float, metric: str = "exact_match", wrong: int = 50) -> AccuracyBudget:
    """A source that answers all rows but the first `wrong` exactly."""
    return AccuracyBudget(metric, max_drop, TARGETS, own(wrong))


def own(wrong: int, first: int = 0) -> list[str]:
    return [("no" if first <= n < first + wrong else text) for n, text in enumerate(TARGETS)]


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l", "bleu"])
def test_the_budget_is_against_the_source_on_all_rows(metric: str) -> None:
    strict, loose = budget(0.0, metric), budget(0.1, metric)
    same, worse, much_worse = own(50), own(55), own(150)
    assert strict.accepts(strict.score(same))
    assert not strict.accepts(strict.score(worse))
    assert loose.accepts(loose.score(worse))
    assert not loose.accepts(loose.score(much_worse))
    assert strict.accepts(strict.score(own(40)))  # better than the source


def test_few_rows_exclude_only_what_is_beyond_doubt() -> None:
    strict = budget(0.005, wrong=0)
    indices = list(range(0, 200, 4))
    one_lost = ["no", *(TARGETS[index] for index in indices[1:])]
    half_lost = ["no" if n % 2 else TARGETS[index] for n, index in enumerate(indices)]
    assert not strict.rejects_early(indices, one_lost)
    assert strict.rejects_early(indices, half_lost)
    assert not budget(0.6, wrong=0).rejects_early(indices, half_lost)


def test_rows_lost_and_won_are_counted_apart() -> None:
    assert budget(0.1, wrong=3).lost_and_won(own(5, first=1)) == (3, 1)


@pytest.mark.parametrize(("metric", "drop"), [("exakt_match", 0.1), ("bleu", -0.1), ("bleu", 5.0)])
def test_a_budget_that_is_none_is_refused(metric: str, drop: float) -> None:
    with pytest.raises(UsageError, match="exact_match" if drop == 0.1 else "fraction"):
        AccuracyBudget(metric, drop, TARGETS, TARGETS)
