"""Accuracy and latency of artifacts, and the search for the fastest accurate one.

    from edge.bench import bench, compile

`bench` compares artifacts on your rows; `compile` searches for the best artifact of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.bench.artifacts.results import Report
    from edge.bench.compiler.events import SearchEvent
    from edge.bench.compiler.run import Outcome
    from edge.runtime.rows import Columns, Row

__all__ = ["bench", "compile"]


def bench(
    artifacts: str | Path | Sequence[str | Path],
    data: str | Path | Sequence[Row],
    *,
    target_ms: float = 100.0,
    runs: int = 100,
    min_time: float = 1.0,
    batch: Sequence[int] = (1,),
    concurrency: Sequence[int] = (1,),
    new_tokens: int | None = None,
    threads: int | None = None,
    reference: str | Path | None = None,
    compare_artifact: str | Path | None = None,
    limit: int | None = None,
    columns: Columns | None = None,
    command: str = "",
    on_progress: Callable[[str, str, int, int], None] | None = None,
    trust_code: bool = False,
) -> Report:
    """Measure the accuracy and latency of artifacts on rows with targets.

    Each artifact runs in a separate process; artifacts take turns. Latency is text to text. Answers
    have the artifact's generation defaults.
    An artifact that can't be loaded or that fails gets a result with an `error`.

    Example:
        >>> from edge.bench import bench
        >>> report = bench("my-artifacts", "dev.jsonl", target_ms=50)
        >>> report.winner.reason
        'ctranslate2 int8 is the fastest (p50 1.8 ms) of the 8 artifacts that meet the target; …'
        >>> report.results[report.winner.result].latency.p95
        2.1

    Args:
        artifacts: artifact folders, folders of artifacts, or hub ids of artifacts.
        data: a JSON-lines file, a folder with a dev split, or rows with targets.
        target_ms: the target for p95, in milliseconds.
        runs: timed calls of each artifact, at least; a verdict on p95 needs 90.
        min_time: timed calls of each artifact for at least so many seconds.
        batch: texts in one call; every size is measured.
        concurrency: threads that call at the same time; every number is measured.
        new_tokens: exact length of every answer; None lets each answer end naturally.
        threads: threads that each engine computes with; None takes each artifact's tuned number,
            or 1.
        reference: an artifact or model folder that answers are compared with; None takes the
            float32 artifact of the same model.
        compare_artifact: an old artifact that is measured in turn with the others; the report's
            `regressions` hold tests of every other artifact against it.
        limit: use the first `limit` rows only.
        columns: the columns of the data file; None takes `input` and `target`.
        command: the command line, for the report.
        on_progress: called with the phase ("load", "latency" or "accuracy"), what is measured, the
            amount done, and the total.
        trust_code: see `edge.runtime.load`.

    Returns:
        The report: `results`, `winner`, `regressions`, and `as_json()` for the JSON document.

    Raises:
        UsageError: a value is out of range, there are no rows, or rows don't fit the prompts.
        ArtifactError: a folder is not an artifact, or is damaged.
        DataError: the data can't be read, or a row has no target.
        MissingExtraError: the metrics' libraries are not installed (extra `bench`).
        BenchInterruptedError: Ctrl-C; its `report` holds what was measured.
    """
    from dataclasses import replace

    from edge.bench.artifacts.regression import find_regressions
    from edge.bench.artifacts.results import BenchSettings
    from edge.bench.artifacts.runner import run_bench
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.errors import UsageError
    from edge.runtime.hub.artifacts import artifact_folder
    from edge.runtime.rows import Columns, dev_file, read_rows

    given = [artifacts] if isinstance(artifacts, str | Path) else artifacts
    folders = [folder for one in given for folder in find_artifacts(artifact_folder(one))]
    old = None if compare_artifact is None else artifact_folder(compare_artifact)
    if old is not None:
        if old.resolve() in [folder.resolve() for folder in folders]:
            raise UsageError(f"{old} would be compared with itself; name another artifact")
        folders = [old, *folders]
    path = dev_file(data) if isinstance(data, str | Path) else None
    rows = read_rows(path, columns or Columns()) if path else data
    assert not isinstance(rows, str | Path)
    report = run_bench(
        folders,
        rows[:limit],
        target_ms=target_ms,
        settings=BenchSettings(
            runs=runs,
            seconds=min_time,
            batch=tuple(batch),
            concurrency=tuple(concurrency),
            new_tokens=new_tokens,
        ),
        threads=threads,
        reference=reference,
        data=path,
        command=command,
        on_progress=on_progress,
        trust_code=trust_code,
    )
    if old is None:
        return report
    found = find_regressions(report.results, str(old))
    return replace(report, regressions=[one.as_json() for one in found])


def compile(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    target_ms: float = 100.0,
    metric: str = "exact_match",
    max_drop: float = 0.005,
    time_limit: float | None = None,
    formats: Sequence[str] = (),
    quantizations: Sequence[str] = (),
    threads: Sequence[int] | None = None,
    shortlist: str | Path | None = None,
    drafts: bool = True,
    exhaustive: bool = False,
    keep_best: bool = False,
    force: bool = False,
    prompt: str | None = None,
    max_input_tokens: int | None = None,
    max_new_tokens: int | None = None,
    limit: int | None = None,
    columns: Columns | None = None,
    revision: str | None = None,
    command: str = "edge.bench.compile",
    on_event: Callable[[SearchEvent], None] | None = None,
) -> Outcome:
    """Search for the fastest artifact of a model within an accuracy budget, and write it.

    The artifact is written if it meets the target, or with `keep_best`; a report is written beside
    it in any case. A search that was interrupted continues when it is called again.

    Example:
        >>> from edge.bench import compile
        >>> outcome = compile("my-model", "my-data", "my-artifact", target_ms=50, max_drop=0.01)
        >>> outcome.meets_target
        True
        >>> outcome.verdict
        'ctranslate2-int8_threads1: p50 1.8 ms, p95 2.1 ms of 500 answers; p95 ≤ 50 ms …'

    Args:
        model: a model folder or hub id.
        data: a JSON-lines file of rows with targets, or a folder: its dev rows measure accuracy
            and latency, its train rows make shortlists.
        output: the artifact folder to write.
        target_ms: the target for p95, in milliseconds.
        metric: `exact_match`, `rouge_l` or `bleu`.
        max_drop: how far the metric may fall below the source model's, as a fraction.
        time_limit: seconds to search; None for no limit.
        formats: formats to try; empty for all that are installed.
        quantizations: quantizations to try; empty for all.
        threads: numbers of threads to try; None for up to all physical cores.
        shortlist: training rows, to try vocabulary shortlists made from their targets (onnx).
        drafts: also try drafts from the input (onnx).
        exhaustive: measure every combination on all rows.
        keep_best: write the best artifact even if it misses the target.
        force: replace an existing output.
        prompt: the prompt around each input, as for `edge export`.
        max_input_tokens: the longest accepted input.
        max_new_tokens: the most tokens of an answer.
        limit: use the first `limit` rows only.
        columns: the columns of the data file; None takes `input` and `target`.
        revision: a branch, tag or commit of a hub model.
        command: the command line, for the report.
        on_event: called when something starts, is skipped or is resumed, with a `SearchEvent`.

    Returns:
        The outcome: `verdict`, `meets_target`, `published`, and `lines` with every candidate.

    Raises:
        OutputExistsError: the output exists and `force` is off.
        UsageError: a value is out of range or unknown.
        DataError: the data can't be read, or a row has no target.
        ModelError: not a T5-family model.
        MissingExtraError: none of the formats' libraries is installed.
        EdgeError: the model can't be exported at all, or the disk is full.
    """
    from edge.bench.compiler.run import Request, compile_model
    from edge.bench.compiler.shortlist_data import check_shortlist_data
    from edge.export.source import SourceModel
    from edge.runtime.rows import Columns, dev_file, holds_splits, read_rows, split_file

    path, columns = dev_file(data), columns or Columns()
    if shortlist is not None:
        check_shortlist_data(Path(shortlist), columns)
    elif holds_splits(data):
        shortlist = split_file(data, "train")
    request = Request(
        source=SourceModel.open(model, revision=revision),
        rows=read_rows(path, columns)[:limit],
        data=path,
        output=Path(output),
        target_ms=target_ms,
        metric=metric,
        max_drop=max_drop,
        formats=formats,
        quantizations=quantizations,
        threads=threads,
        shortlist=None if shortlist is None else Path(shortlist),
        drafts=drafts,
        budget=time_limit,
        exhaustive=exhaustive,
        keep_best=keep_best,
        force=force,
        prompt=prompt,
        max_input_tokens=max_input_tokens,
        generation={} if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
        columns=columns,
        command=command,
    )
    return compile_model(request, on_event or (lambda _: None))
