"""Tests of new artifacts against an old one that was measured in the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.bench.artifacts.results import Result
from edge.bench.timing.shift import Shift, shift
from edge.export.paired_tests import lost_and_won, mcnemar_test

ALPHA = 0.01  # of either test: a gate runs often


@dataclass(frozen=True)
class Regression:
    """A new artifact against the old one, at one batch size and concurrency.

    Attributes:
        artifact: The new artifact.
        old: The old artifact.
        batch: Texts in one call.
        concurrency: Threads that call at once.
        shift: Difference of the times; None if one of them has none.
        old_p50: Milliseconds of the old artifact, None with `shift`.
        lost: Rows that only the old artifact answers exactly; None if one has no answers.
        won: Rows that only the new artifact answers exactly.
        p_loss: p-value of "the new one is less accurate", by the exact McNemar test.
        error: Why the new or the old artifact could not be measured.
    """

    artifact: str
    old: str
    batch: int
    concurrency: int
    shift: Shift | None
    old_p50: float | None
    lost: int | None
    won: int | None
    p_loss: float | None
    error: str | None

    @property
    def is_slower(self) -> bool:
        """Whether the new artifact is significantly slower."""
        return self.shift is not None and self.shift.p_slower < ALPHA

    @property
    def is_less_accurate(self) -> bool:
        """Whether the new artifact lost significantly more rows than it won."""
        return self.p_loss is not None and self.p_loss < ALPHA

    @property
    def failed(self) -> bool:
        """Whether the new artifact is worse, or could not be compared."""
        return self.error is not None or self.is_slower or self.is_less_accurate

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.error is not None:
            return f"{self.artifact}: not compared with {self.old}: {self.error}."
        parts = []
        if self.shift is not None and self.old_p50:
            word = "slower" if self.is_slower else "no slower"
            if self.shift.p_faster < ALPHA:
                word = "faster"
            parts.append(
                f"{word}: {self.shift.ms:+.2f} ms ({self.shift.ms / self.old_p50:+.1%}; 95 %:"
                f" {self.shift.low:+.2f} to {self.shift.high:+.2f} ms; Mann-Whitney p of slower"
                f" {self.shift.p_slower:.2g})"
            )
        if self.p_loss is not None:
            word = "less accurate" if self.is_less_accurate else "no less accurate"
            parts.append(
                f"{word}: {self.lost} answers lost, {self.won} won (McNemar p of a loss"
                f" {self.p_loss:.2g})"
            )
        return f"{self.artifact} against {self.old}: {'; '.join(parts)}."

    def as_json(self) -> dict[str, Any]:
        """The fields for the report's JSON document."""
        return dataclasses.asdict(self) | {
            "is_slower": self.is_slower,
            "is_less_accurate": self.is_less_accurate,
            "failed": self.failed,
            "sentence": self.sentence,
        }


def find_regressions(results: Sequence[Result], old: str) -> list[Regression]:
    """Compare every other artifact of a run with the artifact `old`, case by case.

    Args:
        results: Of the run.
        old: The old artifact's name in it.
    """
    before = {(r.batch, r.concurrency): r for r in results if r.artifact == old}
    return [
        _compare(before[result.batch, result.concurrency], result)
        for result in results
        if result.artifact != old
    ]


def _compare(old: Result, new: Result) -> Regression:
    error = new.error or (old.error and f"{old.artifact}: {old.error}")
    times = None
    if new.latency is not None and old.latency is not None:
        times = shift(old.latency.samples_ms, new.latency.samples_ms)
    lost = won = p_loss = None
    if new.accuracy is not None and old.accuracy is not None:
        lost, won = lost_and_won(new.accuracy.row_scores.exact, old.accuracy.row_scores.exact)
        p_loss = mcnemar_test(lost, won)
    return Regression(
        artifact=new.artifact,
        old=old.artifact,
        batch=new.batch,
        concurrency=new.concurrency,
        shift=times,
        old_p50=old.latency.p50 if times is not None and old.latency is not None else None,
        lost=lost,
        won=won,
        p_loss=p_loss,
        error=error or None,
    )
