"""Names, winner and Pareto front of a report's results, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.bench.artifacts.labels import result_labels
from edge.bench.artifacts.winner import METRIC_NAMES, ranking_metric

Document = Mapping[str, Any]
Result = Mapping[str, Any]


def labels(document: Document) -> list[str]:
    """A unique short name for each result; see `edge.bench.artifacts.labels`."""
    return result_labels(document["results"])


def metric(document: Document) -> str:
    """The metric that results are ranked by; see `edge.bench.artifacts.winner.ranking_metric`."""
    return ranking_metric(one["accuracy"] for one in document["results"] if one["accuracy"])


def metric_name(document: Document) -> str:
    """The name of that metric in a report."""
    return METRIC_NAMES[metric(document)]


@dataclass(frozen=True)
class Point:
    """A result with accuracy and latency, for the plot.

    `index` is its position in the results, `p95` in milliseconds, `score` 0 to 1 (BLEU: 0 to 100).
    `front`: on the Pareto front, so that no other result is both as fast and as accurate.
    """

    index: int
    p95: float
    score: float
    interval: tuple[float, float]
    front: bool = False


def points(document: Document) -> list[Point]:
    """The comparable results: with accuracy and latency, at the smallest batch and concurrency."""
    name = metric(document)
    both = [
        (index, one)
        for index, one in enumerate(document["results"])
        if one["accuracy"] and one["latency"]
    ]
    least = min((_load(one) for _, one in both), default=None)
    found = []
    for index, one in both:
        if _load(one) == least:
            score = one["accuracy"][name]
            low, high = one["accuracy"].get("intervals", {}).get(name, (score, score))
            found.append(Point(index, one["latency"]["p95"], score, (low, high)))
    return [
        Point(p.index, p.p95, p.score, p.interval, not any(_beats(other, p) for other in found))
        for p in found
    ]


def _load(result: Result) -> tuple[int, int]:
    return result.get("batch") or 1, result.get("concurrency") or 1


def _beats(one: Point, other: Point) -> bool:
    return (one.p95 <= other.p95 and one.score >= other.score) and (
        one.p95 < other.p95 or one.score > other.score
    )


def winner_index(document: Document) -> int | None:
    """The position of the winner in the results, None if there is none.

    The run chose it, by a paired test on every row: see `edge.bench.artifacts.winner`.
    """
    winner = document["winner"]
    return None if winner is None else int(winner["result"])


def verdict(document: Document) -> str:
    """The winner, whether it meets the target, and why it won."""
    index = winner_index(document)
    if index is None:
        return "No winner: nothing was measured with both accuracy and latency."
    target = f"{document['target_ms']:g} ms"
    result, name = document["results"][index], labels(document)[index]
    reason = document["winner"]["reason"]
    p95 = f"its p95 is {result['latency']['p95']:.1f} ms"
    if result["verdict"] == "meets":
        return f"Winner: {name} meets the target of {target} ({p95}). {reason}"
    if result["verdict"] == "not shown":
        return (
            f"No artifact meets the target of {target} with 99 % confidence. The best choice so far"
            f" is {name}: {p95}. {reason}"
        )
    return f"No artifact meets the target of {target}. The best choice is {name}: {p95}. {reason}"
