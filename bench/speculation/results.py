"""Results of the speculation benchmark, and their JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.documents import SPECULATION, parse_as, parse_reports, reports_document

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Gain:
    """One comparison of plain greedy search with drafts.

    Attributes:
        what: the model and the inputs.
        runs: pairs of calls on the same input, one after the other.
        tokens_per_step: answer tokens over decoder steps with drafts.
        plain_ms: median of plain greedy search.
        drafted_ms: median with drafts.
        speedup: median over the pairs of plain time over time with drafts.
        speedup_p5: 5th percentile of the same.
        speedup_p95: 95th percentile of the same.
    """

    what: str
    runs: int
    tokens_per_step: float
    plain_ms: float
    drafted_ms: float
    speedup: float
    speedup_p5: float
    speedup_p95: float


@dataclass(frozen=True)
class SpeculationReport:
    """What drafts gain on one artifact.

    Attributes:
        artifact: its folder.
        draft_tokens: the longest draft.
        threads: that the engine computes with.
        rows: of the data.
        identical: rows whose answer has the same tokens with and without drafts.
        tokens_per_step: answer tokens over decoder steps with drafts, all rows.
        gains: the comparisons.
        machine: see `edge.bench.timing.machine`.
        created: ISO 8601, UTC.
    """

    artifact: str
    draft_tokens: int
    threads: int
    rows: int
    identical: int
    tokens_per_step: float
    gains: list[Gain]
    machine: dict[str, Any]
    created: str

    def as_json(self) -> dict[str, Any]:
        """docs/engines.md describes the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(
        cls, values: Mapping[str, Any], path: str | Path | None = None
    ) -> SpeculationReport:
        """The report that `as_json` made `values` from; `path` is for messages.

        Raises:
            DataError: a field is missing or has the wrong type.
            MissingExtraError: pydantic is not installed.
        """
        return parse_as(cls, values, path)


def speculation_document(reports: Sequence[SpeculationReport]) -> dict[str, Any]:
    """The JSON document of a run."""
    return reports_document(SPECULATION, SCHEMA_VERSION, reports)


def speculation_reports(
    values: Mapping[str, Any], path: str | Path | None = None
) -> list[SpeculationReport]:
    """The reports of a document that `speculation_document` made; `path` is for messages.

    Raises:
        DataError: a document of another kind or version, or a damaged one.
        MissingExtraError: pydantic is not installed.
    """
    return parse_reports(
        SpeculationReport, values, kind=SPECULATION, version=SCHEMA_VERSION, path=path
    )
