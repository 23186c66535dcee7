"""One trial of a search: a candidate, its measurement and the outcome."""

from __future__ import annotations

from dataclasses import dataclass

from edge.bench.compiler.space import Candidate
from edge.bench.compiler.trials import Timed


@dataclass
class Trial:
    """A candidate with its longest measurement, and the outcome.

    Attributes:
        candidate: what was measured.
        timed: its answers and times.
        outcome: why it was rejected early; empty if it was not.
        score: the metric on all rows; None if not all were answered.
        drop: how far it is below the source model's score.
        lost: rows that only the source model answers exactly.
        won: rows that only the candidate answers exactly.
        sample_drop: the drop on the rows that were answered.
        accepted: whether it is within the accuracy budget on all rows.
        meets: whether p95 meets the target, with 99 % confidence.
    """

    candidate: Candidate
    timed: Timed
    outcome: str = ""
    score: float | None = None
    drop: float | None = None
    lost: int | None = None
    won: int | None = None
    sample_drop: float | None = None
    accepted: bool = False
    meets: bool = False
