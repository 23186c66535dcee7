"""The winner of a run: the fastest artifact that is not significantly less accurate than the best.

Speed is the p50 latency, text to text. Accuracy is compared with that of the most accurate
artifact by a paired test on the same rows (`edge.bench.artifacts.significance`), one-sided at 5 %:
the exact McNemar test for exact match, the paired bootstrap for other metrics. An artifact that
meets the latency target always wins over one that doesn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.bench.artifacts.accuracy import Accuracy
from edge.bench.artifacts.significance import ALPHA, p_value, paired_test
from edge.bench.timing.verdict import Word

METRIC_NAMES = {"exact_match": "exact match", "rouge_l": "ROUGE-L", "bleu": "BLEU"}
# Below this, exact match is too rare to rank artifacts by.
_MIN_EXACT_MATCH = 0.05
_MAX_NAMES = 3  # artifacts that the reason names as faster but less accurate
# By verdict, the better first: what several artifacts, and a single one, are called.
_GROUPS: dict[Word, tuple[str, str]] = {
    "meets": ("artifacts that meet the target", "artifact that meets the target"),
    "not shown": ("artifacts that may meet the target", "artifact that may meet the target"),
    "misses": ("artifacts measured, which all miss the target", "artifact measured"),
}


@dataclass(frozen=True)
class Contender:
    """A result with both accuracy and latency; `index` is its position in the results.

    `p50` is in milliseconds.
    """

    index: int
    name: str
    p50: float
    verdict: Word
    accuracy: Accuracy


@dataclass(frozen=True)
class Winner:
    """The winning result and why.

    `result` and `best` are positions in the results: the winner, and the most accurate artifact,
    with which all of the same verdict were compared by `metric` and `test`. `p_values` has one
    entry for each result, None where it was not compared; the winner's is above `alpha`.
    """

    result: int
    best: int
    metric: str
    test: str
    alpha: float
    p_values: tuple[float | None, ...]
    reason: str


def choose_winner(contenders: Sequence[Contender], results: int) -> Winner | None:
    """The fastest contender that is not significantly less accurate than the best.

    Only contenders with the best verdict take part: those that meet the target, else those that
    may, else all.

    Args:
        contenders: the results that can be compared.
        results: the number of all results, for `p_values`.

    Returns:
        None if there are no contenders.
    """
    if not contenders:
        return None
    group = next(word for word in _GROUPS if any(one.verdict == word for one in contenders))
    pool = [one for one in contenders if one.verdict == group]
    metric = ranking_metric(vars(one.accuracy) for one in contenders)

    def score(one: Contender) -> float:
        return float(getattr(one.accuracy, metric))

    best = min(pool, key=lambda one: (-score(one), one.p50))
    found = {one.index: _p_value(one, best, metric) for one in pool}
    equal = [one for one in pool if found[one.index] > ALPHA]
    winner = min(equal, key=lambda one: (one.p50, -score(one)))
    return Winner(
        result=winner.index,
        best=best.index,
        metric=metric,
        test=paired_test(metric),
        alpha=ALPHA,
        p_values=tuple(found.get(index) for index in range(results)),
        reason=_reason(winner, best, pool, equal, metric, found[winner.index]),
    )


def ranking_metric(accuracies: Iterable[Mapping[str, Any]]) -> str:
    """The metric that artifacts are ranked by.

    Exact match, unless no artifact answers even 5 % of the rows exactly; then ROUGE-L, or BLEU
    where that is 0 as well.

    Args:
        accuracies: the metrics of each artifact, as in the JSON document.
    """
    measured = list(accuracies)
    thresholds = {"exact_match": _MIN_EXACT_MATCH, "rouge_l": 1e-9, "bleu": 1e-9}
    for metric, least in thresholds.items():
        if any(one[metric] >= least for one in measured):
            return metric
    return "exact_match"


def score_text(metric: str, score: float) -> str:
    """A score for people: a percentage, but BLEU in points."""
    return f"{score:.1f}" if metric == "bleu" else f"{score:.1%}"


def _p_value(one: Contender, best: Contender, metric: str) -> float:
    if one is best:
        return 1.0
    return p_value(one.accuracy.row_scores, best.accuracy.row_scores, metric)


def _reason(
    winner: Contender,
    best: Contender,
    pool: Sequence[Contender],
    equal: Sequence[Contender],
    metric: str,
    p: float,
) -> str:
    """One sentence: why this one."""

    def score(one: Contender) -> str:
        return score_text(metric, getattr(one.accuracy, metric))

    name, rows = METRIC_NAMES[metric], best.accuracy.rows
    if len(pool) == 1:
        return f"{winner.name} is the only {_GROUPS[winner.verdict][1]}: {name} {score(winner)}."
    faster = [one for one in pool if one not in equal and one.p50 < winner.p50]
    text = f"{winner.name} is the fastest (p50 {winner.p50:.1f} ms)"
    text += f" of the {len(pool)} {_GROUPS[winner.verdict][0]}"
    if faster:
        text += ", except for significantly less accurate ones"
    if winner is best:
        text += f", and its {name} is the highest: {score(winner)}"
    else:
        text += (
            f"; its {name} of {score(winner)} is not significantly below the best,"
            f" {score(best)} of {best.name} (p = {p:.2g}, {paired_test(metric)}, {rows} rows)"
        )
    if faster:
        faster = sorted(faster, key=lambda one: one.p50)
        listed = ", ".join(f"{one.name} ({score(one)})" for one in faster[:_MAX_NAMES])
        more = f" and {len(faster) - _MAX_NAMES} more" if len(faster) > _MAX_NAMES else ""
        text += f"; faster but less accurate: {listed}{more}"
    return text + "."
