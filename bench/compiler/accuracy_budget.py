"""Is an artifact accurate enough, and does it meet the target? Both from its answers to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name
from edge.train.metrics import bleu, exact_match_each, rouge_l_each

METRICS = ("exact_match", "rouge_l", "bleu")
_RESAMPLES = 1000
_DOUBT = 0.01  # how likely a candidate may be wronged when it is given up after some rows
MIN_ANSWERS = 165  # with two answers above it, the fewest that show a p95


@dataclass(frozen=True)
class AccuracyBudget:
    """The accuracy budget: how far a metric may fall below the source model's, on the same rows.

    `targets` and `reference` (the source's answers) are those of all rows, in order. All values are
    fractions from 0 to 1, BLEU's included.
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
    def _source_by_row(self) -> np.ndarray:
        return _by_row(self.metric, self.reference, self.targets)

    @cached_property
    def source_score(self) -> float:
        return self._score(self.reference, self.targets)

    def score(self, answers: Sequence[str]) -> float:
        """The metric of answers to all rows."""
        return self._score(answers, self.targets)

    def accepts(self, score: float) -> bool:
        """Whether a score on all rows is within the budget; rounding of sums is passed over."""
        return self.source_score - score <= self.max_drop + 1e-12

    def hopeless(self, places: Sequence[int], answers: Sequence[str]) -> bool:
        """Whether answers to some rows already show that all rows would be out of the budget.

        A bootstrap over the rows (Efron, 1979), so that noise on few rows excludes nobody. BLEU has
        no value by row: it is judged on all rows only.
        """
        if self.metric == "bleu":
            return False
        drops = self._drops(places, answers)
        chosen = np.random.default_rng(0).integers(len(drops), size=(_RESAMPLES, len(drops)))
        return bool(np.quantile(drops[chosen].mean(axis=1), _DOUBT) > self.max_drop + 1e-12)

    def sample_drop(self, places: Sequence[int], answers: Sequence[str]) -> float | None:
        """How far the answers to some rows are below the source's; None for BLEU."""
        return None if self.metric == "bleu" else float(self._drops(places, answers).mean())

    def _drops(self, places: Sequence[int], answers: Sequence[str]) -> np.ndarray:
        """By row, how far the answers are below the source's."""
        targets = [self.targets[place] for place in places]
        return self._source_by_row[list(places)] - _by_row(self.metric, answers, targets)

    def changes(self, answers: Sequence[str]) -> tuple[int, int]:
        """Rows that only the source answers exactly, and rows that only these answers do."""
        own = _by_row("exact_match", answers, self.targets)
        source = _by_row("exact_match", self.reference, self.targets)
        return int((source > own).sum()), int((own > source).sum())

    def _score(self, answers: Sequence[str], targets: Sequence[str]) -> float:
        if self.metric == "bleu":
            return bleu(answers, targets) / 100
        return float(_by_row(self.metric, answers, targets).mean())


def check_drop(max_drop: float) -> None:
    """Refuse points in place of a fraction (UsageError)."""
    if not 0 <= max_drop <= 1:
        raise UsageError(f"--max-drop is a fraction from 0 to 1, such as 0.005, not {max_drop:g}")


def _by_row(metric: str, answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    if metric == "rouge_l":
        return np.array(rouge_l_each(answers, targets))
    return np.array(exact_match_each(answers, targets), dtype=float)
