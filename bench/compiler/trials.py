"""Exports and measurements of a search: each in a separate process, each stored on disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bench.compiler.entries import is_export, is_source, reference_shape, timed_shape
from edge.bench.compiler.events import OnEvent, announcing
from edge.bench.compiler.space import ArtifactSpec, Candidate
from edge.bench.compiler.trial_store import TrialStore
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

# Consecutive rows of one candidate before the next one's turn: fewer if there are few rows.
_SHORT_TURN, _LONG_TURN, _FEW_ROWS = 4, 16, 64
_MAX_PROCESSES = 8  # that take turns
_PROCESS_BYTES = 200 << 20
_LONGEST_EXPORT, _LONGEST_TURN = 3600, 600  # seconds
_REFERENCE_ROWS = 256  # in one request to the source model


@dataclass(frozen=True)
class Timed:
    """A candidate's answers to rows, in order, and the time of each in milliseconds.

    `peak_rss` is in bytes.
    """

    ms: Sequence[float]
    answers: Sequence[str]
    new_tokens: Sequence[int]
    truncated: int
    load_ms: float
    peak_rss: int

    @property
    def p50(self) -> float:
        """Median time of an answer, in milliseconds."""
        return float(np.percentile(self.ms, 50))

    @property
    def p95(self) -> float:
        """95th percentile, in milliseconds."""
        return float(np.percentile(self.ms, 95))


class TrialRunner:
    """Exports artifacts of one model and times them on rows; stored results are reused.

    Attributes:
        store: the results on disk.
        rows: what candidates answer.
        failures: name of an artifact or candidate → why it failed.
    """

    def __init__(
        self, store: TrialStore, rows: Sequence[Row], argument: Mapping[str, Any], on_event: OnEvent
    ) -> None:
        """Nothing is started yet.

        Args:
            store: the results on disk.
            rows: what candidates answer.
            argument: the argument of `edge.bench.compiler.export_worker`.
            on_event: called when something starts.
        """
        self.store = store
        self.rows = rows
        self.failures: dict[str, str] = {}
        self._argument = argument
        self._announce = announcing(on_event)
        self._exporter: Child | None = None
        self._exported: set[ArtifactSpec] = set()  # in this search, not in an earlier one
        self._running: dict[Candidate, Child] = {}  # paused between their turns

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

    # -- the source model ------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """The first answer of `edge.bench.compiler.export_worker`.

        Raises:
            EdgeError: the model can't be exported at all.
        """
        if known := self.store.get("source", is_source):
            return known
        found = self._source().ready
        self.store.put("source", found)
        return found

    def reference_answers(self) -> list[str]:
        """The source model's greedy answer to every row, in float32.

        Raises:
            EdgeError: the source model fails.
        """
        if known := self.store.get("reference", reference_shape(len(self.rows))):
            answers: list[str] = known["answers"]
            return answers
        answers = []
        for first in range(0, len(self.rows), _REFERENCE_ROWS):
            self._announce(f"the source model's answers ({first} of {len(self.rows)})")
            chunk = self.rows[first : first + _REFERENCE_ROWS]
            try:
                answers += self._ask_source(_question(chunk))["answers"]
            except EngineFailedError as error:
                raise EdgeError(f"the source model failed to answer: {error}") from None
        self.store.put("reference", {"answers": answers})
        return answers

    def export(self, spec: ArtifactSpec) -> dict[str, Any] | None:
        """Export an artifact and check its parity; returns size and parity, None if it failed."""
        name = f"export-{spec.name}"
        known = self.store.get(name, is_export)
        if known is None or ("size" in known and not self._is_intact(spec)):
            self._announce(f"exporting {spec.name}")
            known = self._export_new(spec)
            self._exported.add(spec)
            self.store.put(name, known)
        if "size" in known:
            return known
        self.failures[spec.name] = known.get("refused") or known["failed"]
        return None

    def _is_intact(self, spec: ArtifactSpec) -> bool:
        try:
            Artifact.open(self.store.artifact(spec))
        except ArtifactError:
            return False
        return True

    def _export_new(self, spec: ArtifactSpec) -> dict[str, Any]:
        place = self.store.artifact(spec)
        asked = {
            "export": spec.format,
            "quantization": spec.quantization,
            "shortlist": spec.shortlist,
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
            self._exporter = _started("export_worker", self._argument, None)
        return self._exporter

    def row_indices(self, count: int) -> list[int]:
        """The indices of the rows that a measurement of `count` answers takes."""
        indices = {id(row): index for index, row in enumerate(self.rows)}
        return [indices[id(row)] for row in spread_rows(self.rows, count)]

    # -- timing ----------------------------------------------------------------------------------

    def groups(self, candidates: Sequence[Candidate]) -> list[Sequence[Candidate]]:
        """The candidates in groups of at most eight that fit into half of the free memory."""
        count = self._max_processes(candidates)
        return [candidates[i : i + count] for i in range(0, len(candidates), count)]

    def _max_processes(self, candidates: Sequence[Candidate]) -> int:
        """How many processes of such candidates fit into half of the free memory."""
        sizes = [made["size"] for one in candidates if (made := self.export(one.spec))]
        # Engines unpack the weights into a second copy; the rest is for their libraries.
        process_bytes = 2 * max(sizes, default=0) + _PROCESS_BYTES
        return max(1, min(_MAX_PROCESSES, free_memory() // 2 // process_bytes))

    def time_interleaved(
        self, candidates: Sequence[Candidate], count: int
    ) -> dict[Candidate, Timed]:
        """Time candidates on the same rows, in turns; those that fail are left out.

        Args:
            candidates: at most as many as `groups` puts together.
            count: answers of each. The rows are spread over the data, so that those of 16 answers
                are among those of 64.
        """
        rows = spread_rows(self.rows, count)
        done: dict[Candidate, Timed] = {}
        for one in candidates:
            if known := self.store.get(f"timed-{one.name}-{count}", timed_shape(count)):
                if "failed" in known:
                    self.failures[one.name] = known["failed"]
                else:
                    done[one] = Timed(**known)
        waiting = [c for c in candidates if c not in done and c.name not in self.failures]
        for one, found in self._take_turns(waiting, rows).items():
            self.store.put(f"timed-{one.name}-{count}", found)
            if "failed" in found:
                self.failures[one.name] = found["failed"]
            else:
                done[one] = Timed(**found)
        return done

    def _take_turns(
        self, candidates: Sequence[Candidate], rows: Sequence[Row]
    ) -> dict[Candidate, dict[str, Any]]:
        found: dict[Candidate, dict[str, Any]] = {}
        self._end_idle(candidates)
        for one in candidates:
            self._announce(f"timing {one.name} on {len(rows)} rows")
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
        """Start a candidate's process unless it runs; returns its result without answers."""
        if candidate not in self._running:
            folder = self.store.artifact(candidate.spec).resolve()
            trust = candidate.spec in self._exported
            argument = {**candidate.as_json(), "folder": str(folder), "trust_code": trust}
            self._running[candidate] = _started("timing_worker", argument, candidate.threads)
        return {
            "ms": [],
            "answers": [],
            "new_tokens": [],
            "truncated": 0,
            "load_ms": self._running[candidate].ready["load_ms"],
            "peak_rss": 0,
        }

    def _end_idle(self, candidates: Sequence[Candidate]) -> None:
        """End processes kept from earlier rounds, the oldest first, until `candidates` fit."""
        others = [one for one in self._running if one not in candidates]
        for one in others[: max(0, len(others) + len(candidates) - self._max_processes(others))]:
            self._running.pop(one).close()


def _started(program: str, argument: Mapping[str, Any], threads: int | None) -> Child:
    return wait_until_ready(Child(program, argument, threads=threads), _LONGEST_TURN)


def _question(rows: Sequence[Row]) -> dict[str, Any]:
    # Only text columns can be part of a prompt.
    fields = [{k: v for k, v in row.fields.items() if isinstance(v, str)} for row in rows]
    return {"texts": [row.input for row in rows], "fields": fields}


def _add(sums: dict[str, Any], found: Mapping[str, Any]) -> None:
    for name in ("ms", "answers", "new_tokens", "truncated"):
        sums[name] += found[name]
    sums["peak_rss"] = max(sums["peak_rss"], found["peak_rss"])
