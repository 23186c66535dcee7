"""The winner: the fastest artifact that is not significantly less accurate than the best."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from edge.bench.artifacts.accuracy import Accuracy
from edge.bench.artifacts.scores import RowScores
from edge.bench.artifacts.significance import bootstrap_p_value, p_value
from edge.bench.artifacts.winner import Contender, choose_winner, ranking_metric
from edge.bench.timing.verdict import Word
from edge.export.paired_tests import mcnemar_test

TARGETS = [f"the answer of row {n} is {n * 7}" for n in range(500)]


def accuracy(wrong: Sequence[int], answer: str = "nothing") -> Accuracy:
    """Of an artifact that answers all rows but `wrong` exactly."""
    missed = set(wrong)
    answers = [answer if n in missed else text for n, text in enumerate(TARGETS)]
    scores = RowScores(answers, TARGETS, [1.0] * 500, [8] * 500)
    return Accuracy(
        **scores.metrics(),
        truncated=0,
        fit={},
        tasks={},
        worst=(),
        predictions=tuple(answers),
        row_scores=scores,
    )


def contender(
    index: int, name: str, p50: float, wrong: Sequence[int], verdict: Word = "meets"
) -> Contender:
    return Contender(index, name, p50, verdict, accuracy(wrong))


@pytest.mark.parametrize(
    ("lost", "won", "expected"),
    [
        (0, 0, 1.0),
        (5, 0, 1 / 32),
        (0, 5, 1.0),
        (10, 2, 79 / 4096),
        # Agresti's approval ratings; R's exact2x2 gives p = 3.716e-05, two-sided.
        (150, 86, 3.716e-05 / 2),
    ],
)
def test_mcnemar_is_the_exact_binomial(lost: int, won: int, expected: float) -> None:
    by_hand = math.fsum(math.comb(lost + won, k) * 0.5 ** (lost + won) for k in range(won + 1))
    assert mcnemar_test(lost, won) == pytest.approx(by_hand, rel=1e-12)
    assert mcnemar_test(lost, won) == pytest.approx(expected, rel=2e-4)


def test_mcnemar_of_many_rows() -> None:
    """Against the normal approximation, where floats of 0.5 ** n would be 0."""
    z = (49_700 - 50_000 + 0.5) / math.sqrt(100_000 / 4)
    assert mcnemar_test(50_300, 49_700) == pytest.approx(math.erfc(-z / math.sqrt(2)) / 2, rel=1e-3)


def test_the_bootstrap_counts_resamples() -> None:
    assert bootstrap_p_value(np.array([-1.0] * 95 + [0.0, 1.0, 2.0, 3.0])) == 5 / 100
    assert bootstrap_p_value(np.zeros(99)) == 1.0


def test_rouge_l_is_compared_by_a_paired_bootstrap() -> None:
    """Pairing sees what overlapping intervals hide: a few rows, all of them lost."""
    best, worse = accuracy(range(200)), accuracy(range(212))
    low = best.intervals["rouge_l"][0]
    assert worse.rouge_l > low
    assert p_value(worse.row_scores, best.row_scores, "rouge_l") < 0.01
    assert p_value(best.row_scores, worse.row_scores, "rouge_l") > 0.9
    assert p_value(best.row_scores, best.row_scores, "bleu") == 1.0


def test_two_rows_of_500_do_not_beat_three_times_the_speed() -> None:
    slow = contender(0, "gguf q8_0", 6.0, range(66))  # 86.8 %
    fast = contender(1, "ctranslate2 int8", 1.8, [*range(5, 66), *range(100, 107)])  # 86.4 %
    found = choose_winner([slow, fast], 3)
    assert found is not None
    assert (found.result, found.best, found.metric) == (1, 0, "exact_match")
    assert found.p_values[0] == 1.0
    assert found.p_values[1] == pytest.approx(mcnemar_test(7, 5))
    assert found.p_values[2] is None
    assert found.reason == (
        "ctranslate2 int8 is the fastest (p50 1.8 ms) of the 2 artifacts that meet the target;"
        " its exact match of 86.4% is not significantly below the best, 86.8% of gguf q8_0"
        " (p = 0.39, exact McNemar test, one-sided, 500 rows)."
    )


def test_a_significantly_worse_artifact_does_not_win() -> None:
    contenders = [
        contender(0, "float32", 9.0, range(60)),
        contender(1, "int4", 1.0, range(80)),
        contender(2, "int8", 3.0, range(60)),
    ]
    found = choose_winner(contenders, 3)
    assert found is not None
    assert found.result == found.best == 2  # the faster of the two most accurate
    assert "; faster but less accurate: int4 (84.0%)." in found.reason
    assert "except for significantly less accurate ones" in found.reason


def test_a_miss_never_wins_over_a_meet() -> None:
    contenders = [
        contender(0, "slow", 90.0, range(200)),
        contender(1, "accurate", 95.0, range(10), "misses"),
        contender(2, "unknown", 1.0, range(10), "not shown"),
    ]
    found = choose_winner(contenders, 3)
    assert found is not None
    assert found.result == 0
    assert found.reason == "slow is the only artifact that meets the target: exact match 60.0%."
    found = choose_winner(contenders[1:], 3)
    assert found is not None
    assert found.result == 2
    found = choose_winner(contenders[1:2], 3)
    assert found is not None
    assert found.result == 1
    assert choose_winner([], 3) is None


def test_random_noise_seldom_excludes_an_equal_artifact() -> None:
    """At a level of 5 %, about 1 in 20 equally accurate artifacts is excluded, never much more."""
    draw = random.Random(4)
    excluded = 0
    for _ in range(2000):
        lost = sum(draw.random() < 0.5 for _ in range(40))
        excluded += mcnemar_test(lost, 40 - lost) <= 0.05
    assert excluded / 2000 < 0.06


def test_the_metric_is_one_that_ranks() -> None:
    def scores(exact: float, rouge: float, bleu: float = 0.0) -> dict[str, float]:
        return {"exact_match": exact, "rouge_l": rouge, "bleu": bleu}

    assert ranking_metric([scores(0.0, 0.4), scores(0.3, 0.5)]) == "exact_match"
    assert ranking_metric([scores(0.0, 0.4), scores(0.002, 0.5)]) == "rouge_l"
    assert ranking_metric([scores(0.0, 0.0, 3.0)]) == "bleu"
    assert ranking_metric([]) == "exact_match"
