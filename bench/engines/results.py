"""Settings and results of the engine benchmark, and their JSON document."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.documents import ENGINES, parse_as, parse_reports, reports_document
from edge.bench.engines.batches import BatchSpeed
from edge.bench.engines.matrix_rate import MatrixRate
from edge.bench.engines.roofline import Roofline
from edge.bench.engines.scaling import Scaling
from edge.bench.timing.latency import DEFAULT_RUNS, check_runs
from edge.bench.timing.verdict import MEETS, Verdict, check_target, judge
from edge.runtime.errors import UsageError

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Settings:
    """What every engine is asked.

    Attributes:
        input_tokens: source ids, eos included.
        new_tokens: the exact length of the answers.
        threads: the most threads; each engine gets the number up to this that is fastest for it.
        runs: timed answers.
        target_ms: the target for p95.
        batches: sizes of the batches that are measured, too.
    """

    input_tokens: int = 32
    new_tokens: int = 16
    threads: int = 2
    runs: int = DEFAULT_RUNS
    target_ms: float = 100.0
    batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_runs(self.runs)
        check_target(self.target_ms)
        if self.new_tokens < 2:
            raise UsageError(
                f"--new-tokens must be at least 2, not {self.new_tokens}: the time per token is the"
                " difference to answers of one token"
            )
        if any(batch < 1 for batch in self.batches):
            raise UsageError(f"--batch must be at least 1, not {min(self.batches)}")


@dataclass(frozen=True)
class Speed:
    """How fast an engine is; times in milliseconds, memory in bytes.

    Attributes:
        threads: that it computes with.
        load_ms: opening the model.
        import_ms: importing its libraries.
        p5: percentile of whole answers, as `p50` and `p95`.
        first_ms: median of answers of one token, encoder included.
        per_token_ms: median cost of each further token.
        rss: resident memory after the last answer.
        peak_rss: its peak.
        times_ms: every answer.
    """

    threads: int
    load_ms: float
    import_ms: float
    p5: float
    p50: float
    p95: float
    first_ms: float
    per_token_ms: float
    rss: int
    peak_rss: int
    times_ms: tuple[float, ...]


@dataclass(frozen=True)
class EngineRow:
    """One line of the table. If `speed` is None, `failure` says why.

    `bits` are those of a decoder weight; `size` is what the engine loads, in bytes; `batches` has
    one entry for each of the settings', or the smallest alone where answers come one by one.
    """

    name: str
    engine: str
    quantization: str
    bits: int
    is_baseline: bool
    size: int = 0
    speed: Speed | None = None
    failure: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    batches: tuple[BatchSpeed, ...] = ()

    def batch(self, size: int) -> BatchSpeed | None:
        """The speed in batches of `size`; None if it was not measured."""
        found = (one for one in self.batches if one.batch == size and not one.failure)
        return next(found, None)


@dataclass(frozen=True)
class EngineReport:
    """Everything that was measured for one model.

    Attributes:
        model: the name of a shape, or a model folder or hub id.
        random_weights: whether it is a shape.
        settings: what every engine was asked.
        rows: edge's artifacts first, then the baselines.
        bandwidth: read bandwidth of the memory, bytes per second; 0 if not measured.
        matrix_rate: the best int8 matrix product of this machine.
        rooflines: of one answer, by bits per decoder weight.
        scaling: of edge's artifacts; empty unless requested.
        machine: see `edge.bench.timing.machine`.
        created: ISO 8601, UTC.
        interrupted: whether the run was stopped before its end.
        batch_rooflines: of each batch size and each number of bits.
    """

    model: str
    random_weights: bool
    settings: Settings
    rows: list[EngineRow]
    bandwidth: float
    matrix_rate: MatrixRate
    rooflines: dict[int, Roofline]
    scaling: list[Scaling]
    machine: dict[str, Any]
    created: str
    interrupted: bool = False
    batch_rooflines: list[Roofline] = dataclasses.field(default_factory=list)

    def best_baseline(self, bits: int) -> EngineRow | None:
        """The fastest baseline of that precision by its median; None without one."""
        measured = [
            (row.speed.p50, row)
            for row in self.rows
            if row.is_baseline and row.speed and row.bits == bits
        ]
        return min(measured, key=lambda pair: pair[0])[1] if measured else None

    def times_faster(self, row: EngineRow) -> float | None:
        """How many times faster a row is than the fastest baseline of its precision."""
        best = self.best_baseline(row.bits)
        if best is None or best.speed is None or row.speed is None:
            return None
        return best.speed.p50 / row.speed.p50

    def times_roofline(self, row: EngineRow) -> float | None:
        """A row's median over the roofline's time for its precision."""
        roofline = self.rooflines.get(row.bits)
        return row.speed.p50 / roofline.ms if roofline and row.speed else None

    def best_batch_baseline(self, bits: int, batch: int) -> BatchSpeed | None:
        """The baseline of that precision with the most answers per second; None without one."""
        found = [
            one
            for row in self.rows
            if row.is_baseline and row.bits == bits and (one := row.batch(batch))
        ]
        return max(found, key=lambda one: one.answers_per_second, default=None)

    def batch_times_faster(self, row: EngineRow, batch: int) -> float | None:
        """A row's answers per second over those of the best baseline of its precision."""
        speed, best = row.batch(batch), self.best_batch_baseline(row.bits, batch)
        return speed.answers_per_second / best.answers_per_second if speed and best else None

    def batch_times_roofline(self, row: EngineRow, batch: int) -> float | None:
        """The roofline's answers per second over a row's, for its precision and that batch."""
        speed = row.batch(batch)
        for roofline in self.batch_rooflines:
            if speed and (roofline.bits, roofline.batch) == (row.bits, batch):
                return roofline.answers_per_second / speed.answers_per_second
        return None

    def verdict(self, row: EngineRow) -> Verdict | None:
        """Whether the row's p95 meets the target; None if it was not measured."""
        return judge(row.speed.times_ms, self.settings.target_ms) if row.speed else None

    def meets_target(self, row: EngineRow) -> bool:
        """Whether the row meets the target, with 99 % confidence."""
        verdict = self.verdict(row)
        return verdict is not None and verdict.word == MEETS

    @property
    def any_meets_target(self) -> bool:
        """Whether one of edge's artifacts meets the target; the baselines do not count."""
        return any(self.meets_target(row) for row in self.rows if not row.is_baseline)

    def as_json(self) -> dict[str, Any]:
        """The report with each row's ratios and verdict; docs/engines.md describes the fields."""
        values = dataclasses.asdict(self)
        for row, fields in zip(self.rows, values["rows"], strict=True):
            fields["times_faster_than_best_baseline"] = self.times_faster(row)
            fields["times_roofline"] = self.times_roofline(row)
            for one in fields["batches"]:
                size = one["batch"]
                one["times_faster_than_best_baseline"] = self.batch_times_faster(row, size)
                one["times_roofline"] = self.batch_times_roofline(row, size)
            fields["meets_target"] = self.meets_target(row)
            verdict = self.verdict(row)
            fields["verdict"] = verdict.word if verdict else None
            fields["verdict_reason"] = verdict.reason if verdict else row.failure
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: str | Path | None = None) -> EngineReport:
        """The report that `as_json` made `values` from; `path` is for messages.

        Raises:
            DataError: a field is missing or has the wrong type.
            MissingExtraError: pydantic is not installed.
        """
        return parse_as(cls, values, path)


class EnginesInterruptedError(KeyboardInterrupt):
    """A benchmark stopped by Ctrl-C or another signal.

    `report` holds what was measured until then; `number` is the signal's.
    """

    def __init__(self, report: EngineReport, number: int = signal.SIGINT) -> None:
        super().__init__("interrupted")
        self.report = report
        self.number = int(number)


def engines_document(reports: Sequence[EngineReport]) -> dict[str, Any]:
    """The JSON document of a run."""
    return reports_document(ENGINES, SCHEMA_VERSION, reports)


def engine_reports(values: Mapping[str, Any], path: str | Path | None = None) -> list[EngineReport]:
    """The reports of a document that `engines_document` made; `path` is for messages.

    Raises:
        DataError: a document of another kind or version, or a damaged one.
        MissingExtraError: pydantic is not installed.
    """
    return parse_reports(EngineReport, values, kind=ENGINES, version=SCHEMA_VERSION, path=path)
