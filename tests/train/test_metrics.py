"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from edge.runtime.errors import UsageError
from edge.train.metrics import exact_match, fit_band_eval_loss, fit_band_rouge_l, text_metrics


def test_exact_match_ignores_white_space_and_nothing_else() -> None:
    references = ["who are you?", "who are you?", "who are you?", "who are you?"]
    predictions = [" who  are\tyou? ", "Who are you?", "who are you", "who are you?"]
    assert exact_match(predictions, references) == 0.5


def test_rouge_l_is_the_mean_f1_of_the_longest_common_subsequence() -> None:
    # "a b d" and "a b c d e": common subsequence 3, precision 3/3, recall 3/5, F1 0.75; the second
    # pair has nothing in common. No stemming: "runs" is not "run".
    found = text_metrics(["a b d", "runs"], ["a b c d e", "run"])
    assert found["rouge_l"] == pytest.approx(0.375)


def test_bleu_is_that_of_the_corpus_in_points() -> None:
    same = ["the cat sat on the mat"] * 2
    assert text_metrics(same, same)["bleu"] == pytest.approx(100.0)
    # All 5 unigrams, 4 bigrams, 3 trigrams and 2 four-grams match; the brevity penalty of 5 words
    # against 6 is all that is missing.
    short = text_metrics(["the cat sat on the"], ["the cat sat on the mat"])
    assert short["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_verbatim_match_sees_white_space() -> None:
    found = text_metrics(["a\n b", "a  b", "a b "], ["a\n b", "a b", "a b"])
    assert found["exact_match"] == 1.0
    assert found["verbatim_match"] == 1 / 3


def test_empty_predictions_score_nothing() -> None:
    assert text_metrics(["", ""], ["a b", "c d"]) == {
        "exact_match": 0.0,
        "verbatim_match": 0.0,
        "rouge_l": 0.0,
        "bleu": 0.0,
    }


def test_lists_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1 predictions .* 2 references"):
        text_metrics(["a"], ["a", "b"])
    with pytest.raises(UsageError, match="nothing to score"):
        text_metrics([], [])


@pytest.mark.parametrize(
    ("value", "band"),
    [
        (0.0, "excellent"),
        (0.999, "excellent"),
        (1.0, "good"),
        (1.999, "good"),
        (2.0, "decent"),
        (4.999, "decent"),
        (5.0, "weak"),
        (9.999, "weak"),
        (10.0, "poor"),
        (math.inf, "poor"),
        (math.nan, "poor"),
    ],
)
def test_bands_of_eval_loss(value: float, band: str) -> None:
    assert fit_band_eval_loss(value) == band


@pytest.mark.parametrize(
    ("value", "band"),
    [
        (0.0, "poor"),
        (0.0999, "poor"),
        (0.1, "weak"),
        (0.1999, "weak"),
        (0.2, "decent"),
        (0.2999, "decent"),
        (0.3, "good"),
        (0.5, "good"),
        (0.5001, "excellent"),
        (1.0, "excellent"),
        (math.nan, "poor"),
    ],
)
def test_bands_of_rouge_l(value: float, band: str) -> None:
    assert fit_band_rouge_l(value) == band
