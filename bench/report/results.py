"""What the results of a document amount to: their names, the best of them, the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
Result = Mapping[str, Any]

_METRICS = {"exact_match": "exact match", "rouge_l": "ROUGE-L", "bleu": "BLEU"}


def printable(text: object) -> str:
    """Text in one line without what moves a cursor: names may come from a stranger's file."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


def labels(document: Document) -> list[str]:
    """A short name for each result, unlike all others: format and quantization where that is
    enough, else what of the path differs; batch and concurrency where they differ."""
    results: Sequence[Result] = document["results"]
    names = [f"{one['format']} {one['quantization']}" for one in results]
    paths = [one["artifact"] for one in results]
    own = dict(zip(paths, names, strict=True))
    if len(set(own.values())) < len(own):
        names = _differing_parts(paths)
    for field, before, after in (
        ("batch", "batch ", ""),
        ("concurrency", "", " at once"),
        ("threads", "", " threads"),
    ):
        if len({one.get(field) for one in results}) > 1:
            taken = Counter(names)
            values = [one.get(field) for one in results]
            names = [
                f"{name}, {before}{value}{after}" if value and taken[name] > 1 else name
                for name, value in zip(names, values, strict=True)
            ]
    return [printable(name) for name in names]


def _differing_parts(paths: Sequence[str]) -> list[str]:
    """Each path without the folders that all share."""
    parts = [path.rstrip("/").split("/") for path in paths]
    shared = 0
    while all(len(own) > shared + 1 for own in parts) and len({own[shared] for own in parts}) == 1:
        shared += 1
    return ["/".join(own[shared:]) for own in parts]


def metric(document: Document) -> str:
    """What results are ranked by: exact match, or the first metric that tells them from nothing."""
    measured = [one["accuracy"] for one in document["results"] if one["accuracy"]]
    return next((m for m in _METRICS if any(a[m] > 0 for a in measured)), "exact_match")


def metric_name(document: Document) -> str:
    return _METRICS[metric(document)]


@dataclass(frozen=True)
class Point:
    """A result with accuracy (0 to 1, or 0 to 100 for BLEU) and latency (p95, ms); `place` is in
    the document's results. `front`: no other is as fast and more accurate, or faster and as
    accurate."""

    place: int
    p95: float
    score: float
    interval: tuple[float, float]
    front: bool = False


def points(document: Document) -> list[Point]:
    """Results that can be compared: both measured, at the smallest batch and concurrency."""
    name = metric(document)
    both = [
        (place, one)
        for place, one in enumerate(document["results"])
        if one["accuracy"] and one["latency"]
    ]
    least = min((_load(one) for _, one in both), default=None)
    found = []
    for place, one in both:
        if _load(one) == least:
            score = one["accuracy"][name]
            low, high = one["accuracy"].get("intervals", {}).get(name, (score, score))
            found.append(Point(place, one["latency"]["p95"], score, (low, high)))
    return [
        Point(p.place, p.p95, p.score, p.interval, not any(_beats(other, p) for other in found))
        for p in found
    ]


def _load(result: Result) -> tuple[int, int]:
    return result.get("batch") or 1, result.get("concurrency") or 1


def _beats(one: Point, other: Point) -> bool:
    return (one.p95 <= other.p95 and one.score >= other.score) and (
        one.p95 < other.p95 or one.score > other.score
    )


def best(document: Document) -> int | None:
    """The place of the result to ship: of those that meet the target (else of all) the most
    accurate, and of equals the fastest."""
    found = points(document)
    meeting = [p for p in found if document["results"][p.place]["verdict"] == "meets"]
    chosen = min(meeting, key=lambda p: (-p.score, p.p95), default=None)
    if chosen is None:
        chosen = min(found, key=lambda p: (p.p95, -p.score), default=None)
    return None if chosen is None else chosen.place


def verdict(document: Document) -> str:
    """One sentence: what to ship, or how far the best is from the target."""
    target = f"{document['target_ms']:g} ms"
    place = best(document)
    if place is None:
        return "Nothing was measured with both accuracy and latency."
    result, name = document["results"][place], labels(document)[place]
    p95 = f"p95 {result['latency']['p95']:.1f} ms"
    if result["verdict"] == "meets":
        by = f"the best {metric_name(document)}: {_score(document, place)}"
        return f"{name} meets the target of {target} with {by}, {p95}{_faster(document, place)}."
    if result["verdict"] == "not shown":
        return f"Nothing is shown to meet the target of {target}; the nearest is {name}: {p95}."
    return f"Nothing meets the target of {target}; the nearest is {name}: {p95}."


def _score(document: Document, place: int) -> str:
    score = document["results"][place]["accuracy"][metric(document)]
    return f"{score:.1f}" if metric(document) == "bleu" else f"{score:.1%}"


def _faster(document: Document, place: int) -> str:
    """The fastest result that the rows can't tell from the best one, where it is another."""
    found = points(document)
    low = next(point.interval[0] for point in found if point.place == place)
    meeting = [p for p in found if document["results"][p.place]["verdict"] == "meets"]
    fastest = min((p for p in meeting if p.score >= low), key=lambda p: p.p95)
    if fastest.place == place:
        return ""
    return (
        f"; {labels(document)[fastest.place]} is within its interval and faster:"
        f" {_score(document, fastest.place)}, p95 {fastest.p95:.1f} ms"
    )
