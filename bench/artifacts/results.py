"""What a benchmark found, as objects and as the JSON document that everything else is made from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from edge.bench.artifacts.accuracy import Accuracy
from edge.bench.timing.latency import DEFAULT_RUNS, MIN_RUNS, Latency
from edge.bench.timing.verdict import MEETS, MISSES, Word
from edge.runtime.errors import UsageError

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class BenchSettings:
    """What is asked of every artifact: at least `runs` timed calls and `seconds` of them, at every
    size in `batch` with every number of threads in `concurrency`. `new_tokens` None lets answers
    end where they end."""

    runs: int = DEFAULT_RUNS
    seconds: float = 0.0
    batch: tuple[int, ...] = (1,)
    concurrency: tuple[int, ...] = (1,)
    new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.runs < MIN_RUNS:
            raise UsageError(
                f"--runs must be at least {MIN_RUNS}, not {self.runs}: fewer make no median"
            )
        if not 0 <= self.seconds <= 86_400:
            raise UsageError(f"--seconds must be from 0 to 86400, not {self.seconds:g}")
        for name, most in (("batch", 1024), ("concurrency", 256)):
            values = getattr(self, name)
            if not values or not all(1 <= value <= most for value in values):
                raise UsageError(f"--{name} must be numbers from 1 to {most}, such as 1,8")
            if len(set(values)) < len(values):
                raise UsageError(f"--{name} names a number twice")
        if self.new_tokens is not None and self.new_tokens < 2:
            raise UsageError("--new-tokens must be at least 2: one token has no cost per token")


@dataclass(frozen=True)
class Data:
    """The rows' file, how many of them were used, and the sha256 of the whole file; None where the
    rows are from no file."""

    path: str | None
    rows: int
    sha256: str | None


@dataclass(frozen=True)
class Result:
    """One line of the table: an artifact at one batch size and concurrency.

    `error` says why figures are missing, or how the engine failed after them. The accuracy is the
    artifact's, whatever the batch.
    """

    artifact: str
    format: str
    quantization: str
    size_mb: float
    threads: int
    batch: int
    concurrency: int
    error: str | None
    accuracy: Accuracy | None
    latency: Latency | None
    verdict: Word
    verdict_reason: str

    @property
    def meets_target(self) -> bool:
        return self.verdict == MEETS


@dataclass(frozen=True)
class Report:
    """`baseline` is what giving each input as its answer would score, where that was computed;
    `interrupted` says that the run was stopped before its end."""

    results: list[Result]
    target_ms: float
    data: Data
    settings: BenchSettings
    machine: dict[str, Any]
    created: str
    command: str = ""
    notes: list[str] = field(default_factory=list)
    baseline: dict[str, Any] | None = None
    interrupted: bool = False

    @property
    def rows(self) -> int:
        return self.data.rows

    @property
    def any_meets_target(self) -> bool:
        """Whether any result is shown to."""
        return any(result.meets_target for result in self.results)

    @property
    def all_miss_target(self) -> bool:
        """Whether what was measured is shown to miss it, all of it."""
        return bool(self.measured) and all(r.verdict == MISSES for r in self.measured)

    @property
    def measured(self) -> list[Result]:
        """The lines with figures and without an error."""
        return [r for r in self.results if r.latency is not None and r.error is None]

    def as_json(self) -> dict[str, Any]:
        """The report without the predictions; docs/bench.md describes the fields."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created": self.created,
            "interrupted": self.interrupted,
            "target_ms": self.target_ms,
            "command": self.command,
            "data": dataclasses.asdict(self.data),
            "machine": self.machine,
            "baseline": self.baseline,
            "settings": dataclasses.asdict(self.settings),
            "notes": self.notes,
            "results": [_result_json(result) for result in self.results],
        }


def _result_json(result: Result) -> dict[str, Any]:
    values = dataclasses.asdict(dataclasses.replace(result, accuracy=None))
    return values | {"accuracy": result.accuracy and result.accuracy.as_json()}


class BenchInterruptedError(KeyboardInterrupt):
    """Ctrl-C during a benchmark; `report` holds what was measured before."""

    def __init__(self, report: Report) -> None:
        super().__init__("interrupted")
        self.report = report
