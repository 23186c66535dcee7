"""Text metrics from per-row statistics, so that any subset of rows is scored by a sum.

Metrics per task and bootstrap confidence intervals are cheap this way: no text is scored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edge.runtime.registry import missing_extra
from edge.train.metrics import exact_match_each, rouge_l_each, verbatim_match_each

RESAMPLES = 1000
MIN_ROWS = 10  # for an interval
# Random draws in all; with more than 50,000 rows there are fewer resamples, but at least 200.
_DRAWS, _MIN_RESAMPLES = 50_000_000, 200
_DRAWS_AT_ONCE = 2_000_000  # of 8 bytes
_SEED = 12_345  # sacrebleu's


class RowScores:
    """The statistics of every row, as one matrix [rows × statistics].

    Columns: exact match, ROUGE-L, summed loss (nats), target tokens, verbatim match, then
    sacrebleu's counts for BLEU and for chrF.
    """

    def __init__(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        losses: Sequence[float] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """Score each row.

        Args:
            predictions: the answers.
            references: the targets, one for each answer.
            losses: summed negative log-probability of each target, in nats. None: no eval_loss.
            tokens: number of tokens of each target, eos included.

        Raises:
            MissingExtraError: rouge-score or sacrebleu is not installed.
        """
        try:
            from sacrebleu.metrics import BLEU, CHRF
        except ImportError:
            raise missing_extra("the accuracy", "sacrebleu", "bench") from None
        self._bleu, self._chrf = BLEU(force=True), CHRF()
        self._has_loss = losses is not None
        zeros = np.zeros(len(predictions))
        columns = [
            exact_match_each(predictions, references),
            rouge_l_each(predictions, references),
            zeros if losses is None else losses,
            zeros if tokens is None else tokens,
            verbatim_match_each(predictions, references),
        ]
        bleu, chrf = (
            np.array(metric._extract_corpus_statistics(predictions, [references]), np.float64)
            for metric in (self._bleu, self._chrf)
        )
        self._splits = np.cumsum([len(columns), bleu.shape[1]])
        self._matrix = np.concatenate([np.array(columns, np.float64).T, bleu, chrf], axis=1)

    @property
    def rouge_l(self) -> np.ndarray:
        """ROUGE-L of each row, 0 to 1 [rows]."""
        return self._matrix[:, 1]

    @property
    def exact(self) -> np.ndarray:
        """Whether each row is an exact match [rows]."""
        return self._matrix[:, 0] > 0

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Each metric on every bootstrap resample of the rows [resamples].

        The draws depend on the number of rows alone, so the values of two artifacts that answered
        the same rows are paired.
        """
        return self._metrics_of(_resampled_sums(self._matrix), len(self._matrix))

    def metrics(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """Metrics of all rows, or of those at `indices`, with their 95 % `intervals`.

        exact_match, verbatim_match and rouge_l are fractions, bleu and chrf 0 to 100, eval_loss
        nats per token. Intervals are percentiles of bootstrap resamples, drawn with replacement
        (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; for BLEU Koehn,
        "Statistical Significance Tests for Machine Translation Evaluation", 2004); there are none
        for fewer than 10 rows.
        """
        matrix = self._matrix if indices is None else self._matrix[list(indices)]
        rows = len(matrix)
        exact = self._metrics_of(matrix.sum(axis=0, keepdims=True), rows)
        values: dict[str, Any] = {name: float(value[0]) for name, value in exact.items()}
        intervals: dict[str, tuple[float, float]] = {}
        if rows >= MIN_ROWS:
            resampled = (
                self.resampled
                if indices is None
                else self._metrics_of(_resampled_sums(matrix), rows)
            )
            for name, found in resampled.items():
                low, high = np.percentile(found, (2.5, 97.5))
                intervals[name] = (float(low), float(high))
        return {"rows": rows, **values, "intervals": intervals}

    def _metrics_of(self, sums: np.ndarray, rows: int) -> dict[str, np.ndarray]:
        """Each metric [resamples] of summed statistics [resamples × statistics]."""
        own, bleu, chrf = np.split(sums, self._splits, axis=1)
        columns = {"exact_match": 0, "verbatim_match": 4, "rouge_l": 1}
        values = {name: own[:, column] / rows for name, column in columns.items()}
        for name, metric, counts in (("bleu", self._bleu, bleu), ("chrf", self._chrf, chrf)):
            whole = counts.round().astype(np.int64).tolist()
            values[name] = np.array([metric._compute_score_from_stats(one).score for one in whole])
        if self._has_loss:
            values["eval_loss"] = own[:, 2] / own[:, 3]
        return values


def _resampled_sums(matrix: np.ndarray) -> np.ndarray:
    """The summed statistics of each resample [resamples × statistics]; deterministic.

    A resample is how often each row was drawn, so its sums are one matrix product.
    """
    rows = len(matrix)
    resamples = min(RESAMPLES, max(_MIN_RESAMPLES, _DRAWS // rows))
    at_once = max(1, _DRAWS_AT_ONCE // rows)
    random = np.random.default_rng(_SEED)
    sums = []
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        drawn = random.integers(rows, size=(count, rows)) + np.arange(count)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        sums.append(times @ matrix)
    return np.concatenate(sums)


def ratio_interval(ratio: float, rows: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of a ratio of `rows`, without resampling the rows."""
    found = np.random.default_rng(_SEED).binomial(rows, ratio, size=RESAMPLES) / rows
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
