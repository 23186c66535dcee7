"""Exports and measurements of a search: each in a process of its own, each kept in the record."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bench.compiler.space import ArtifactSpec, Candidate
from edge.bench.compiler.trial_store import Record
from edge.bench.compiler.worker import Child
from edge.bench.timing.interleaved import Turn, time_interleaved
from edge.bench.timing.latency import spread_rows
from edge.bench.timing.line_process import (
    EngineFailedError,
    EngineProcessError,
    wait_until_ready,
)
from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError, EdgeError
from edge.runtime.platform.memory import free_memory
from edge.runtime.rows import Row

# Rows in a row before another candidate has its turn; fewer where there are few in all.
_SHORT_TURN, _LONG_TURN, _FEW_ROWS = 4, 16, 64
_TOGETHER = 8  # processes that take turns
_PROCESS_BYTES = 200 << 20
_LONGEST_EXPORT, _LONGEST_TURN = 3600, 600  # seconds
_REFERENCE_ROWS = 256  # of one question to the source model
Event = Callable[[str], None]


@dataclass(frozen=True)
class Timed:
    """A candidate's answers to rows, in order, and the milliseconds of each."""

    ms: Sequence[float]
    answers: Sequence[str]
    new_tokens: Sequence[int]
    truncated: int
    load_ms: float
    peak_rss: int  # bytes

    @property
    def p50(self) -> float:
        return float(np.percentile(self.ms, 50))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.ms, 95))


class TrialRunner:
    """Makes artifacts of one source and times them on rows; what the record has is not done again.

    `failures` says, by the name of an artifact or candidate, why there is none.
    """

    def __init__(
        self, record: Record, rows: Sequence[Row], argument: Mapping[str, Any], on_event: Event
    ) -> None:
        """`argument` is that of the exporter's program (`edge.bench.compiler.export_worker`)."""
        self.record = record
        self.rows = rows
        self.failures: dict[str, str] = {}
        self._argument = argument
        self._on_event = on_event
        self._exporter: Child | None = None
        self._running: dict[Candidate, Child] = {}  # asleep between their turns

    def close(self) -> None:
        """End all processes."""
        for child in self._running.values():
            child.close()
        self._running.clear()
        self._stop_source()

    def _stop_source(self) -> None:
        if self._exporter:
            self._exporter.close()
            self._exporter = None

    # -- the source's process --------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """What the source's process says first; see `edge.bench.compiler.export_worker`.

        Raises:
            EdgeError: the model can't be exported at all.
        """
        if known := self.record.get("source"):
            return known
        found = self._source().ready
        self.record.put("source", found)
        return found

    def reference(self) -> list[str]:
        """The source model's greedy answer to every row, in float32.

        Raises:
            EdgeError: it has none.
        """
        if known := self.record.get("reference"):
            answers: list[str] = known["answers"]
            return answers
        answers = []
        for first in range(0, len(self.rows), _REFERENCE_ROWS):
            self._on_event(f"the source model's answers ({first} of {len(self.rows)})")
            chunk = self.rows[first : first + _REFERENCE_ROWS]
            try:
                answers += self._ask_source(_question(chunk))["answers"]
            except EngineFailedError as error:
                raise EdgeError(f"the source model does not answer: {error}") from None
        self.record.put("reference", {"answers": answers})
        return answers

    def make(self, variant: ArtifactSpec) -> dict[str, Any] | None:
        """Export an artifact and check its parity: its size and parity; None where that failed."""
        name = f"export-{variant.name}"
        known = self.record.get(name)
        if known is None or ("size" in known and not self._is_whole(variant)):
            self._on_event(f"exporting {variant.name}")
            known = self._export(variant)
            self.record.put(name, known)
        if "size" in known:
            return known
        self.failures[variant.name] = known.get("refused") or known["failed"]
        return None

    def _is_whole(self, variant: ArtifactSpec) -> bool:
        try:
            Artifact.open(self.record.artifact(variant))
        except ArtifactError:
            return False
        return True

    def _export(self, variant: ArtifactSpec) -> dict[str, Any]:
        place = self.record.artifact(variant)
        asked = {
            "export": variant.format,
            "quantization": variant.quantization,
            "shortlist": variant.shortlist,
            "output": str(place),
        }
        try:
            return self._ask_source(asked)
        except EngineFailedError as error:
            for unfinished in place.parent.glob(f".{place.name}.*.partial"):
                shutil.rmtree(unfinished, ignore_errors=True)
            return {"failed": str(error)}

    def _ask_source(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        process = self._source()
        try:
            return process.request(asked, _LONGEST_EXPORT)
        except EngineFailedError:
            if not process.alive:  # the next question gets a new process
                self._stop_source()
            raise

    def _source(self) -> Child:
        if self._exporter is None:
            self._exporter = _started("exporter", self._argument, None)
        return self._exporter

    def places(self, count: int) -> list[int]:
        """Which rows, by their place in the data, a measurement of `count` answers takes."""
        place = {id(row): index for index, row in enumerate(self.rows)}
        return [place[id(row)] for row in spread_rows(self.rows, count)]

    # -- timing ----------------------------------------------------------------------------------

    def groups(self, candidates: Sequence[Candidate]) -> list[Sequence[Candidate]]:
        """The candidates in groups of at most eight that fit into half of the free memory."""
        count = self._together(candidates)
        return [candidates[i : i + count] for i in range(0, len(candidates), count)]

    def _together(self, candidates: Sequence[Candidate]) -> int:
        """How many processes of such candidates may be there at once."""
        sizes = [made["size"] for one in candidates if (made := self.make(one.variant))]
        # Weights once more for what engines unpack, and the libraries.
        most = 2 * max(sizes, default=0) + _PROCESS_BYTES
        return max(1, min(_TOGETHER, free_memory() // 2 // most))

    def time_interleaved(
        self, candidates: Sequence[Candidate], count: int
    ) -> dict[Candidate, Timed]:
        """Time candidates that take turns on the same rows; those that fail are left out.

        The rows are spread over the data; those of 16 are among those of 64, these among those of
        256.
        """
        rows = spread_rows(self.rows, count)
        done: dict[Candidate, Timed] = {}
        for one in candidates:
            if known := self.record.get(f"timed-{one.name}-{count}"):
                if "failed" in known:
                    self.failures[one.name] = known["failed"]
                else:
                    done[one] = Timed(**known)
        waiting = [c for c in candidates if c not in done and c.name not in self.failures]
        for one, found in self._take_turns(waiting, rows).items():
            self.record.put(f"timed-{one.name}-{count}", found)
            if "failed" in found:
                self.failures[one.name] = found["failed"]
            else:
                done[one] = Timed(**found)
        return done

    def _take_turns(
        self, candidates: Sequence[Candidate], rows: Sequence[Row]
    ) -> dict[Candidate, dict[str, Any]]:
        found: dict[Candidate, dict[str, Any]] = {}
        self._make_room(candidates)
        for one in candidates:
            self._on_event(f"timing {one.name} on {len(rows)} rows")
            try:
                found[one] = self._run(one)
            except EngineProcessError as error:
                found[one] = {"failed": str(error)}

        def time_turn(one: Candidate, turn: Turn) -> float:
            question = _question(rows[turn.first : turn.first + turn.count])
            answers = self._running[one].request(question, _LONGEST_TURN)
            _add(found[one], answers)
            return float(sum(answers["ms"])) / 1000

        def on_failure(one: Candidate, error: EngineProcessError) -> None:
            found[one] = {"failed": str(error)}
            self._running.pop(one).close()

        time_interleaved(
            [one for one in candidates if one in self._running],
            time_turn,
            runs=len(rows),
            turn_length=_LONG_TURN if len(rows) > _FEW_ROWS else _SHORT_TURN,
            on_failure=on_failure,
        )
        return found

    def _run(self, candidate: Candidate) -> dict[str, Any]:
        """Have a candidate's process running; what is known of it before its first answer."""
        if candidate not in self._running:
            folder = self.record.artifact(candidate.variant).resolve()
            argument = {**candidate.as_json(), "folder": str(folder)}
            self._running[candidate] = _started("timer", argument, candidate.threads)
        return {
            "ms": [],
            "answers": [],
            "new_tokens": [],
            "truncated": 0,
            "load_ms": self._running[candidate].ready["load_ms"],
            "peak_rss": 0,
        }

    def _make_room(self, candidates: Sequence[Candidate]) -> None:
        """End processes that were kept for a next round, the longest kept first."""
        others = [one for one in self._running if one not in candidates]
        for one in others[: max(0, len(others) + len(candidates) - self._together(others))]:
            self._running.pop(one).close()


def _started(program: str, argument: Mapping[str, Any], threads: int | None) -> Child:
    return wait_until_ready(Child(program, argument, threads=threads), _LONGEST_TURN)


def _question(rows: Sequence[Row]) -> dict[str, Any]:
    # Other columns than text have no place in a prompt.
    fields = [{k: v for k, v in row.fields.items() if isinstance(v, str)} for row in rows]
    return {"texts": [row.input for row in rows], "fields": fields}


def _add(sums: dict[str, Any], found: Mapping[str, Any]) -> None:
    for name in ("ms", "answers", "new_tokens", "truncated"):
        sums[name] += found[name]
    sums["peak_rss"] = max(sums["peak_rss"], found["peak_rss"])
