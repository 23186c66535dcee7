"""The whole search of `edge compile`: from a model and rows to one artifact and a report."""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.bench.compiler.accuracy_budget import METRICS, AccuracyBudget, check_drop
from edge.bench.compiler.advice import advice, verdict
from edge.bench.compiler.events import OnEvent, SearchEvent
from edge.bench.compiler.report import (
    Line,
    manifest_section,
    report,
    table,
    write_report,
    write_winner,
)
from edge.bench.compiler.search import Search
from edge.bench.compiler.shortlist_data import shortlist_files
from edge.bench.compiler.space import Space, find_quantizations
from edge.bench.compiler.trial import Trial
from edge.bench.compiler.trial_store import TrialStore
from edge.bench.compiler.trials import TrialRunner
from edge.bench.thread_numbers import checked_threads, thread_numbers
from edge.bench.timing.machine import machine_info
from edge.bench.timing.verdict import check_target
from edge.export.options import ExportOptions, resolve_limits
from edge.export.source import SourceModel
from edge.runtime.artifact import sha256_of
from edge.runtime.errors import UsageError
from edge.runtime.platform.cpu import physical_cores
from edge.runtime.platform.destination import check_destination
from edge.runtime.registry import unknown_name
from edge.runtime.rows import Columns, Row, data_sha256, split_file, to_json
from edge.runtime.rows.kinds import is_hub
from edge.runtime.version import edge_version


@dataclass(frozen=True)
class Request:
    """A request to search; None and empty values leave the choice to the search or the model.

    The fields are those of `edge.bench.compile`; `budget` is the time limit in seconds.
    """

    source: SourceModel
    rows: Sequence[Row]
    data: Path
    output: Path
    target_ms: float = 100.0
    metric: str = "exact_match"
    max_drop: float = 0.005
    formats: Sequence[str] = ()
    quantizations: Sequence[str] = ()
    threads: Sequence[int] | None = None
    shortlist: Path | None = None
    drafts: bool = True
    budget: float | None = None
    exhaustive: bool = False
    keep_best: bool = False
    force: bool = False
    prompt: str | None = None
    max_input_tokens: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)
    command: str = "edge compile"

    def check(self) -> None:
        """Check the request before any work.

        Raises:
            OutputExistsError: the output exists and `force` is off.
            UsageError: a value is out of range or unknown.
        """
        if self.output.name in ("", ".."):  # the folder and reports beside it would have no name
            raise UsageError(f"--output must name a folder, not {self.output}")
        check_destination(self.output, force=self.force, inputs=[self.source.folder, self.data])
        if self.metric not in METRICS:
            raise UsageError(unknown_name("metric", self.metric, METRICS))
        check_drop(self.max_drop)
        check_target(self.target_ms)
        resolve_limits(self.source, ExportOptions(max_input_tokens=self.max_input_tokens))
        if self.shortlist and any(
            path.resolve() == self.data.resolve() for path in shortlist_files(self.shortlist)[:1]
        ):
            raise UsageError(
                "--shortlist and --data are the same file, so the accuracy would be too good to be"
                " true; use the training data for the shortlist"
            )


@dataclass(frozen=True)
class Outcome:
    """The result of a search.

    Attributes:
        lines: the table, one line for each candidate.
        best: the best accepted candidate, None if there is none.
        published: whether it was written to the output.
        verdict: the verdict in a sentence.
        advice: what would help, if the target is missed.
        found: the JSON report.
        reports: the report files.
        work: the folder that a further call continues from; None if it was removed.
    """

    lines: list[Line]
    best: Trial | None
    published: bool
    verdict: str
    advice: list[str]
    found: dict[str, Any]
    reports: list[Path]
    work: Path | None

    @property
    def meets_target(self) -> bool:
        """Whether the best candidate's p95 meets the target, with 99 % confidence."""
        return bool(self.best and self.best.meets)


def compile_model(request: Request, on_event: OnEvent = lambda _: None) -> Outcome:
    """Search, and publish the fastest artifact within the accuracy budget.

    It is published if it meets the target, or with `keep_best`; the report is written in any case.
    A search that was interrupted, by the time limit or a signal, continues at the next call with
    the same model, data and settings.

    Raises:
        OutputExistsError: the output exists and `force` is off.
        UsageError: a value is out of range or unknown.
        MissingExtraError: none of the formats' libraries is installed.
        EdgeError: the model can't be exported at all, the disk is full, or the like.
    """
    started, cpu = time.monotonic(), _cpu_seconds()
    request.check()
    quantizations, skipped = find_quantizations(request.formats, request.quantizations)
    for why in skipped.values():
        on_event(SearchEvent("skipped", f"skipped: {why}"))
    threads = (
        checked_threads(request.threads) if request.threads else thread_numbers(physical_cores())
    )
    argument = _export_worker_argument(request)
    identity = _identity(request, argument)
    output = request.output
    with TrialStore.open(output.with_name(output.name + ".work"), identity, output) as store:
        if store.found:
            message = f"going on with {store.found} results in {store.folder}"
            on_event(SearchEvent("resumed", message))
        runner = TrialRunner(store, request.rows, argument, on_event)
        try:
            first = runner.start()
            reference = runner.reference_answers()
            targets = [row.target or "" for row in request.rows]
            search = Search(
                runner,
                Space(
                    quantizations,
                    threads,
                    shortlist=request.shortlist is not None,
                    drafts=request.drafts and first["plain_greedy"],
                ),
                AccuracyBudget(request.metric, request.max_drop, targets, reference),
                request.target_ms,
                request.budget,
                started=started,
            )
            search.run_exhaustive() if request.exhaustive else search.run()
        finally:
            runner.close()
        return _finish(request, search, skipped, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """CPU time of this process and its ended children, which other programs hardly affect."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _finish(
    request: Request, search: Search, skipped: Mapping[str, str], cpu_seconds: float
) -> Outcome:
    """Publish the winner and write the report."""
    best = next(iter(search.ranking()), None)
    publishing = best is not None and (best.meets or request.keep_best)
    sentence, hints = verdict(search, best), advice(search, best, request.source.architecture)
    lines = table(search, best if publishing else None)
    facts = {
        "edge_version": edge_version(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": request.command,
        "exhaustive": request.exhaustive,
        "model": request.source.name,
        "weights_sha256": request.source.weights_sha256,
        "data": request.data.name,
        "data_sha256": data_sha256(request.data),
        "machine": machine_info(),
        "verdict": sentence,
        "advice": hints,
        "skipped": dict(skipped),
        "cpu_seconds": round(cpu_seconds, 1),
    }
    found = report(search, lines, best if publishing else None, facts)
    store = search.runner.store
    if best and publishing:
        folder = store.artifact(best.candidate.spec)
        write_winner(folder, request.output, best, manifest_section(found), force=request.force)
    reports = write_report(found, request.output)
    # A further call can continue if time was up or nothing was published.
    keep = search.time_up or not publishing
    if not keep:
        store.remove()
    return Outcome(
        lines, best, publishing, sentence, hints, found, reports, store.folder if keep else None
    )


def _export_worker_argument(request: Request) -> dict[str, Any]:
    source = request.source
    # Only train rows calibrate, those beside the dev rows, which judge the artifacts.
    folder = request.data.parent
    train_file = None
    if not is_hub(request.data) and request.data == split_file(folder, "dev"):
        train_file = split_file(folder, "train")
    return {
        "folder": str(source.folder.resolve()),
        "name": source.name,
        "revision": source.revision,
        "prompt": request.prompt,
        "max_input_tokens": request.max_input_tokens,
        "generation": dict(request.generation),
        "shortlist": _absolute(request.shortlist) if request.shortlist else None,
        "calibrate": str(train_file.resolve()) if train_file else None,
        "input_column": request.columns.input,
        "target_column": request.columns.target,
    }


# What the worker's argument names by path; stored results depend on the content.
_PATHS = ("folder", "shortlist", "calibrate")


def _identity(request: Request, argument: Mapping[str, Any]) -> dict[str, Any]:
    """What stored results depend on: not the target, the accuracy budget or the metric."""
    machine = machine_info()
    rows = hashlib.sha256()
    for row in request.rows:
        rows.update(to_json([row.input, row.target, dict(row.fields)], ensure_ascii=True).encode())
    folder = request.source.folder
    files = {path.name: sha256_of(path) for path in sorted(folder.glob("*.json"))}
    shortlists = shortlist_files(request.shortlist) if request.shortlist else []
    calibrate = argument["calibrate"]
    return {
        "schema_version": 1,
        "edge_version": edge_version(),
        "machine": {name: machine[name] for name in ("cpu", "cores", "system", "versions")},
        "weights_sha256": request.source.weights_sha256,
        "model_files": files,
        "rows_sha256": rows.hexdigest(),
        "shortlist_sha256": [data_sha256(path) for path in shortlists],
        "calibrate_sha256": data_sha256(Path(calibrate)) if calibrate else None,
        "exporter": {key: argument[key] for key in argument if key not in _PATHS},
    }


def _absolute(data: Path) -> str:
    return str(data if is_hub(data) else data.resolve())
