"""Results of a benchmark, as objects and as the JSON document that all reports are made from."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edge.bench.artifacts.accuracy import Accuracy
from edge.bench.artifacts.labels import result_labels
from edge.bench.artifacts.winner import Contender, Winner, choose_winner
from edge.bench.documents import ARTIFACTS
from edge.bench.timing.latency import DEFAULT_RUNS, MIN_RUNS, Latency
from edge.bench.timing.verdict import MEETS, MISSES, Word
from edge.runtime.errors import UsageError

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class BenchSettings:
    """How often and how every artifact is asked.

    Attributes:
        runs: timed calls of each, at least.
        seconds: timed calls of each for at least so long.
        batch: texts in one call; every size is measured.
        concurrency: threads that call at once; every number is measured.
        new_tokens: exact length of every answer; None lets each answer end naturally.

    Raises:
        UsageError: a value is out of range.
    """

    runs: int = DEFAULT_RUNS
    seconds: float = 0.0
    batch: tuple[int, ...] = (1,)
    concurrency: tuple[int, ...] = (1,)
    new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.runs < MIN_RUNS:
            raise UsageError(
                f"--runs must be at least {MIN_RUNS} for a stable median, not {self.runs}"
            )
        if not 0 <= self.seconds <= 86_400:
            raise UsageError(f"--min-time must be from 0 to 86400 seconds, not {self.seconds:g}")
        for name, most in (("batch", 1024), ("concurrency", 256)):
            values = getattr(self, name)
            if not values or not all(1 <= value <= most for value in values):
                raise UsageError(f"--{name} must be numbers from 1 to {most}, such as 1,8")
            if len(set(values)) < len(values):
                raise UsageError(f"--{name} names a number twice")
        if self.new_tokens is not None and self.new_tokens < 2:
            raise UsageError(
                f"--new-tokens must be at least 2 to measure the time per token, not"
                f" {self.new_tokens}"
            )


@dataclass(frozen=True)
class Data:
    """The data file, the number of rows used, and the file's sha256.

    `path` and `sha256` are None if the rows are not from a file.
    """

    path: str | None
    rows: int
    sha256: str | None


@dataclass(frozen=True)
class Result:
    """An artifact at one batch size and concurrency.

    `error` says why there is no accuracy or latency, or how the engine failed afterwards. The
    accuracy is the same for all batch sizes of an artifact. `size_mb` is in 10⁶ bytes.
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
        """Whether p95 meets the target, with 99 % confidence."""
        return self.verdict == MEETS

    def as_json(self) -> dict[str, Any]:
        """The result in the JSON document."""
        values = dataclasses.asdict(dataclasses.replace(self, accuracy=None))
        return values | {"accuracy": self.accuracy and self.accuracy.as_json()}


@dataclass(frozen=True)
class Report:
    """Everything that one run measured.

    `baseline` holds the metrics of copying each input as the answer; `interrupted` is true if the
    run was stopped before its end. `created` is ISO 8601, UTC. `regressions` holds the
    comparison with an old artifact, if there is one: see `edge.bench.artifacts.regression`.
    """

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
    regressions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows that were used."""
        return self.data.rows

    @property
    def any_meets_target(self) -> bool:
        """Whether any result meets the target, with 99 % confidence."""
        return any(result.meets_target for result in self.results)

    @property
    def all_miss_target(self) -> bool:
        """Whether all measured results miss the target, with 99 % confidence."""
        return bool(self.measured) and all(r.verdict == MISSES for r in self.measured)

    @property
    def measured(self) -> list[Result]:
        """The results with a latency and without an error."""
        return [r for r in self.results if r.latency is not None and r.error is None]

    @cached_property
    def winner(self) -> Winner | None:
        """The result to deploy; see `edge.bench.artifacts.winner`.

        Results with both accuracy and latency are compared, at the smallest batch and concurrency.
        None if there are none.
        """
        least = min(
            ((r.batch, r.concurrency) for r in self.measured if r.accuracy is not None),
            default=None,
        )
        labels = result_labels([result.as_json() for result in self.results])
        contenders = [
            Contender(index, labels[index], one.latency.p50, one.verdict, one.accuracy)
            for index, one in enumerate(self.results)
            if one.error is None
            and one.accuracy is not None
            and one.latency is not None
            and (one.batch, one.concurrency) == least
        ]
        return choose_winner(contenders, len(self.results))

    def as_json(self) -> dict[str, Any]:
        """The JSON document; docs/bench.md describes the fields."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": ARTIFACTS,
            "created": self.created,
            "interrupted": self.interrupted,
            "target_ms": self.target_ms,
            "command": self.command,
            "data": dataclasses.asdict(self.data),
            "machine": self.machine,
            "baseline": self.baseline,
            "settings": dataclasses.asdict(self.settings),
            "notes": self.notes,
            "winner": None if self.winner is None else dataclasses.asdict(self.winner),
            "regressions": self.regressions,
            "results": [result.as_json() for result in self.results],
        }


class BenchInterruptedError(KeyboardInterrupt):
    """A benchmark stopped by Ctrl-C or another signal.

    `report` holds what was measured until then; `number` is the signal's.
    """

    def __init__(self, report: Report, number: int = signal.SIGINT) -> None:
        super().__init__("interrupted")
        self.report = report
        self.number = int(number)
