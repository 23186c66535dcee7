"""Findings of a load test: figures with their targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.bench.serving.http_client import BROKEN, REFUSED, Reply
from edge.bench.serving.load_generator import OpenLoad


@dataclass(frozen=True)
class Finding:
    """One figure and its target; `holds` is None if there is no target."""

    name: str
    value: str
    target: str = ""
    holds: bool | None = None


def steady_findings(load: OpenLoad, limit: float, single_p95: float) -> list[Finding]:
    """Of an open loop of half the capacity `limit`, in requests per second."""
    p50, p95 = percentiles(load.answered_seconds, 50, 95)
    ratio = p95 / single_p95
    return [
        Finding("half load: sent", f"{load.rate:.0f}/s ({load.rate / limit:.0%} of capacity)"),
        Finding("half load: replies", statuses(load.replies), "all 200", load.only(200)),
        Finding(
            "half load: p50 / p95",
            f"{milliseconds(p50)} / {milliseconds(p95)} ({ratio:.2f} × single)",
            "p95 at most 1.5 × single",
            ratio <= 1.5,
        ),
    ]


def overload_findings(load: OpenLoad, deadline: float) -> list[Finding]:
    """Of an open loop of several times the capacity; `deadline` of the service in seconds."""
    p50, p95, worst = percentiles(load.answered_seconds, 50, 95, 100)
    refused = [reply for reply in load.replies if reply.status in (429, 503)]
    retry_after = all("retry-after" in reply.headers for reply in refused)
    return [
        Finding("5 × capacity: sent", f"{load.rate:.0f}/s ({load.unsent} not sent)"),
        Finding(
            "5 × capacity: replies",
            statuses(load.replies),
            "200, 429, 503",
            load.only(200, 429, 503),
        ),
        Finding(
            "5 × capacity: Retry-After in refusals",
            "yes" if retry_after else "no",
            "in all",
            retry_after,
        ),
        Finding(
            "5 × capacity: accepted p50 / p95 / max",
            f"{milliseconds(p50)} / {milliseconds(p95)} / {milliseconds(worst)}",
            f"under the deadline of {deadline:g} s",
            worst < deadline,
        ),
    ]


def statuses(replies: Sequence[Reply]) -> str:
    """How many replies have which status."""
    names = {REFUSED: "no connection", BROKEN: "broken"}
    counts = Counter(names.get(reply.status, str(reply.status)) for reply in replies)
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items()))


def percentiles(values: Sequence[float], *percents: float) -> list[float]:
    """The percentiles of the values; NaN without values."""
    if not values:
        return [float("nan")] * len(percents)
    return [float(value) for value in np.percentile(values, percents)]


def milliseconds(seconds: float) -> str:
    """Seconds as text in milliseconds."""
    return f"{seconds * 1000:.1f} ms"
