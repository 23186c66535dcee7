"""The accuracy budget: how far a metric may fall below that of the source model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge.export.paired_tests import lost_and_won
from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name
from edge.train.metrics import bleu, exact_match_each, rouge_l_each

METRICS = ("exact_match", "rouge_l", "bleu")
_RESAMPLES = 1000
_ERROR_PROBABILITY = 0.01  # of rejecting an accurate candidate after some of the rows
_ROUNDING = 1e-12
MIN_ANSWERS = 165  # the fewest that show a p95 with two answers above the target


@dataclass(frozen=True)
class AccuracyBudget:
    """How far a metric may fall below the source model's, on the same rows.

    All scores are fractions from 0 to 1, BLEU's included.

    Attributes:
        metric: one of METRICS.
        max_drop: the largest accepted drop.
        targets: the target of every row.
        reference: the source model's answer to every row.

    Raises:
        UsageError: an unknown metric, or a drop outside 0 to 1.
    """

    metric: str
    max_drop: float
    targets: Sequence[str]
    reference: Sequence[str]

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(unknown_name("metric", self.metric, METRICS))
        check_drop(self.max_drop)

    @cached_property
    def _source_by_row(self) -> NDArray[np.float64]:
        return _by_row(self.metric, self.reference, self.targets)

    @cached_property
    def source_score(self) -> float:
        """The source model's score on all rows."""
        return self._score(self.reference, self.targets)

    def score(self, answers: Sequence[str]) -> float:
        """The score of answers to all rows."""
        return self._score(answers, self.targets)

    def accepts(self, score: float) -> bool:
        """Whether a score on all rows is within the budget."""
        return self.source_score - score <= self.max_drop + _ROUNDING

    def rejects_early(self, indices: Sequence[int], answers: Sequence[str]) -> bool:
        """Whether answers to some rows show that all rows would exceed the budget.

        A bootstrap over the rows (Efron, 1979) gives the lower 99 % bound of the drop, so that
        noise on a few rows rejects no candidate. BLEU has no value per row: it is never rejected
        early.

        Args:
            indices: the rows that were answered.
            answers: the answers to them.
        """
        if self.metric == "bleu":
            return False
        drops = self._drops(indices, answers)
        chosen = np.random.default_rng(0).integers(len(drops), size=(_RESAMPLES, len(drops)))
        bound = np.quantile(drops[chosen].mean(axis=1), _ERROR_PROBABILITY)
        return bool(bound > self.max_drop + _ROUNDING)

    def sample_drop(self, indices: Sequence[int], answers: Sequence[str]) -> float | None:
        """The mean drop on the rows at `indices`; None for BLEU."""
        return None if self.metric == "bleu" else float(self._drops(indices, answers).mean())

    def _drops(self, indices: Sequence[int], answers: Sequence[str]) -> NDArray[np.float64]:
        """The drop on each row."""
        targets = [self.targets[index] for index in indices]
        return self._source_by_row[list(indices)] - _by_row(self.metric, answers, targets)

    def lost_and_won(self, answers: Sequence[str]) -> tuple[int, int]:
        """Number of rows that only the source answers exactly, and that only `answers` do."""
        own = np.array(exact_match_each(answers, self.targets))
        return lost_and_won(own, np.array(exact_match_each(self.reference, self.targets)))

    def _score(self, answers: Sequence[str], targets: Sequence[str]) -> float:
        if self.metric == "bleu":
            return bleu(answers, targets) / 100
        return float(_by_row(self.metric, answers, targets).mean())


def check_drop(max_drop: float) -> None:
    """Check that `max_drop` is a fraction.

    Raises:
        UsageError: it is not from 0 to 1, such as a number of percentage points.
    """
    if not 0 <= max_drop <= 1:
        raise UsageError(f"--max-drop must be a fraction from 0 to 1, as 0.005, not {max_drop:g}")


def _by_row(metric: str, answers: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
    each = rouge_l_each if metric == "rouge_l" else exact_match_each
    return np.array(each(answers, targets), dtype=np.float64)
