"""Text metrics from one row's statistics each: any part of a data set is scored by adding up.

That is what makes figures per task and confidence intervals cheap: no text is looked at twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.runtime.registry import missing_extra
from edge.train.metrics import exact_match_each, rouge_l_each

RESAMPLES = 1000
# Fewer rows than this say too little of other rows for an interval.
MIN_ROWS = 10
# Random draws in all; with more than 50,000 rows there are fewer resamples, but never below this.
_DRAWS, _FEWEST_RESAMPLES = 50_000_000, 200
_DRAWS_AT_ONCE = 2_000_000  # of 8 bytes
_SEED = 12_345  # sacrebleu's


class RowScores:
    """The statistics of every row, as one matrix [rows × statistics].

    Columns: exact match, ROUGE-L, summed loss (nats), target tokens, then sacrebleu's counts for
    BLEU and for chrF.
    """

    def __init__(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        losses: Sequence[float] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """`losses` and `tokens`: each target's summed negative log-probability, and its length
        with eos; without them there is no eval_loss.

        Raises:
            MissingExtraError: rouge-score or sacrebleu is not installed.
        """
        try:
            from sacrebleu.metrics import BLEU, CHRF
        except ImportError:
            raise missing_extra("the accuracy", "sacrebleu", "bench") from None
        self._bleu, self._chrf = BLEU(force=True), CHRF()
        self._has_loss = losses is not None
        rows = len(predictions)
        none = np.zeros(rows)
        columns = [
            exact_match_each(predictions, references),
            rouge_l_each(predictions, references),
            none if losses is None else losses,
            none if tokens is None else tokens,
        ]
        bleu, chrf = (
            np.array(metric._extract_corpus_statistics(predictions, [references]), np.float64)
            for metric in (self._bleu, self._chrf)
        )
        self._parts = np.cumsum([len(columns), bleu.shape[1]])
        self._matrix = np.concatenate([np.array(columns, np.float64).T, bleu, chrf], axis=1)

    @property
    def rouge_l(self) -> np.ndarray:
        """ROUGE-L of each row, 0 to 1 [rows]."""
        return self._matrix[:, 1]

    @property
    def right(self) -> np.ndarray:
        """Which rows are exact matches [rows]."""
        return self._matrix[:, 0] > 0

    def figures(self, places: Sequence[int] | None = None) -> dict[str, Any]:
        """Metrics of all rows, or of those at `places`, with `intervals` (empty for few rows).

        exact_match and rouge_l are fractions, bleu and chrf points (0 to 100), eval_loss nats per
        token. An interval holds the metric of 95 % of the resamples: rows drawn with replacement
        (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; for BLEU Koehn,
        "Statistical Significance Tests for Machine Translation Evaluation", 2004).
        """
        matrix = self._matrix if places is None else self._matrix[list(places)]
        point = self._metrics(matrix.sum(axis=0, keepdims=True), len(matrix))
        values: dict[str, Any] = {name: float(value[0]) for name, value in point.items()}
        intervals: dict[str, tuple[float, float]] = {}
        if len(matrix) >= MIN_ROWS:
            for name, found in self._metrics(_resampled_sums(matrix), len(matrix)).items():
                low, high = np.percentile(found, (2.5, 97.5))
                intervals[name] = (float(low), float(high))
        return {"rows": len(matrix), **values, "intervals": intervals}

    def _metrics(self, sums: np.ndarray, rows: int) -> dict[str, np.ndarray]:
        """Each metric [resamples] of summed statistics [resamples × statistics]."""
        own, bleu, chrf = np.split(sums, self._parts, axis=1)
        values = {"exact_match": own[:, 0] / rows, "rouge_l": own[:, 1] / rows}
        for name, metric, counts in (
            ("bleu", self._bleu, bleu),
            ("chrf", self._chrf, chrf),
        ):
            whole = counts.round().astype(np.int64).tolist()
            values[name] = np.array([metric._compute_score_from_stats(one).score for one in whole])
        if self._has_loss:
            values["eval_loss"] = own[:, 2] / own[:, 3]
        return values


def _resampled_sums(matrix: np.ndarray) -> np.ndarray:
    """The summed statistics of each resample [resamples × statistics]; the same for the same rows.

    A resample is how often each row was drawn, so that its sums are one product of matrices.
    """
    rows = len(matrix)
    resamples = min(RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // rows))
    at_once = max(1, _DRAWS_AT_ONCE // rows)
    random = np.random.default_rng(_SEED)
    sums = []
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        drawn = random.integers(rows, size=(count, rows)) + np.arange(count)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        sums.append(times @ matrix)
    return np.concatenate(sums)


def share_interval(share: float, rows: int) -> tuple[float, float]:
    """The bootstrap's interval of a share of `rows`, which needs no rows to be drawn."""
    found = np.random.default_rng(_SEED).binomial(rows, share, size=RESAMPLES) / rows
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
