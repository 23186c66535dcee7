"""Paired significance tests: is one artifact less accurate than another on the same rows?

Both tests are one-sided. The null hypothesis is that the artifact is as accurate as the reference;
a small p-value says that it is less accurate.
"""

from __future__ import annotations

import numpy as np

from edge.bench.artifacts.scores import RowScores
from edge.export.paired_tests import lost_and_won, mcnemar_test

ALPHA = 0.05  # significance level
MCNEMAR = "exact McNemar test, one-sided"
BOOTSTRAP = "paired bootstrap, one-sided"


def paired_test(metric: str) -> str:
    """The test that `p_value` uses for a metric."""
    return MCNEMAR if metric == "exact_match" else BOOTSTRAP


def p_value(artifact: RowScores, reference: RowScores, metric: str) -> float:
    """The p-value of "`artifact` is less accurate than `reference`".

    Exact match is right or wrong on each row: the exact McNemar test. ROUGE-L, BLEU, chrF and
    eval_loss: the paired bootstrap.

    Args:
        artifact: its scores.
        reference: scores of the same rows, in the same order.
        metric: `exact_match`, `rouge_l`, `bleu`, `chrf` or `eval_loss`.
    """
    if metric == "exact_match":
        return mcnemar_test(*lost_and_won(artifact.exact, reference.exact))
    difference = artifact.resampled[metric] - reference.resampled[metric]
    return bootstrap_p_value(-difference if metric == "eval_loss" else difference)


def bootstrap_p_value(differences: np.ndarray) -> float:
    """The one-sided p-value of a paired bootstrap.

    Args:
        differences: artifact minus reference on each resample [resamples], higher is better.

    Returns:
        The ratio of resamples on which the artifact is at least as good (Koehn, "Statistical
        Significance Tests for Machine Translation Evaluation", 2004), with one added to both
        counts, so that it is never 0.
    """
    as_good = int((differences >= 0).sum())
    return (as_good + 1) / (len(differences) + 1)
