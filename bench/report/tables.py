"""Tables and notes of a report, as text: terminal, Markdown and HTML show the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.bench.report.marks import MARKS
from edge.bench.report.results import Document, labels, winner_index
from edge.runtime.printing import printable_line

_NOTHING = "–"


@dataclass(frozen=True)
class Line:
    """One line; `verdict` is a result's, "failed" if it has an error, else empty."""

    cells: tuple[str, ...]
    verdict: str = ""
    winner: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first `left` columns hold text, the others numbers."""

    title: str
    columns: tuple[str, ...]
    left: int
    lines: tuple[Line, ...]


def tables(document: Document) -> list[Table]:
    """Results, latency breakdown and the winner's tasks; empty tables are left out."""
    found = [results_table(document), phases_table(document), tasks_table(document)]
    return [table for table in found if table is not None]


def results_table(document: Document) -> Table:
    """One line for each result, then the baseline (copying the input)."""
    results = document["results"]
    axes = [a for a in ("batch", "concurrency") if any((r.get(a) or 1) != 1 for r in results)]
    agrees = any((r["accuracy"] or {}).get("agreement") is not None for r in results)
    chrf = any("chrf" in (r["accuracy"] or {}) for r in results)
    columns = ["artifact", "threads", *axes, "size, MB", "exact match", "ROUGE-L", "BLEU"]
    columns += ["chrF"] * chrf + ["eval_loss"] + ["= source"] * agrees
    columns += ["p50 (quartiles), ms", "p95, ms", f"≤ {document['target_ms']:g} ms"]
    winner = winner_index(document)

    def scores(values: Mapping[str, Any] | None) -> list[str]:
        values = values or {}
        cells = [_with_interval(values), _number(values.get("rouge_l"), "{:.3f}")]
        cells += [_number(values.get("bleu"), "{:.1f}")]
        cells += [_number(values.get("chrf"), "{:.1f}")] * chrf
        cells += [_number(values.get("eval_loss"), "{:.3f}")]
        return cells + [_number(values.get("agreement"), "{:.1%}")] * agrees

    lines = []
    for index, (result, label) in enumerate(zip(results, labels(document), strict=True)):
        latency = result["latency"] or {}
        cells = [label, _number(result.get("threads"), "{}")]
        cells += [_number(result.get(axis) or 1, "{}") for axis in axes]
        cells += [_number(result.get("size_mb"), "{:.1f}"), *scores(result["accuracy"])]
        cells += [_quartiles(latency), _number(latency.get("p95"), "{:.1f}")]
        shown = "failed" if result.get("error") else result["verdict"]
        lines.append(Line((*cells, MARKS[shown]), shown, winner=index == winner))
    if document.get("baseline"):
        filling = [_NOTHING] * (2 + len(axes))
        copied = ["copy the input", *filling, *scores(document["baseline"]), *[_NOTHING] * 3]
        lines.append(Line(tuple(copied)))
    title = f"{document['data']['rows']} rows, p95 target {document['target_ms']:g} ms"
    return Table(title, tuple(columns), 1, tuple(lines))


# Column, field of `latency`, format.
_PHASES = (
    ("tokenize", "tokenize_ms", "{:.2f} ms"),
    ("encode", "encode_ms", "{:.1f} ms"),
    ("first token", "first_token_ms", "{:.1f} ms"),
    ("per token", "per_token_ms", "{:.2f} ms"),
    ("detokenize", "detokenize_ms", "{:.2f} ms"),
    ("tokens/s", "tokens_per_second", "{:.0f}"),
    ("p90", "p90", "{:.1f} ms"),
    ("p99", "p99", "{:.1f} ms"),
    ("load", "load_ms", "{:.0f} ms"),
    ("cold start", "cold_start_ms", "{:.0f} ms"),
    ("peak memory", "peak_rss_mb", "{:.0f} MB"),
    ("energy", "joules_per_answer", "{:.3f} J"),
)


def phases_table(document: Document) -> Table | None:
    """Where the time of an answer goes, and load and memory; None without measurements."""
    measured = [
        (label, result["latency"])
        for label, result in zip(labels(document), document["results"], strict=True)
        if result["latency"]
    ]
    phases = [p for p in _PHASES if any(latency.get(p[1]) is not None for _, latency in measured)]
    if not phases:
        return None
    lines = tuple(
        Line((label, *(_number(latency.get(field), form) for _, field, form in phases)))
        for label, latency in measured
    )
    return Table("Where the time goes", ("artifact", *(p[0] for p in phases)), 1, lines)


def tasks_table(document: Document) -> Table | None:
    """The metrics of each task's rows for the winner; None if rows have no tasks."""
    index = winner_index(document)
    if index is None or not document["results"][index]["accuracy"].get("tasks"):
        return None
    tasks = document["results"][index]["accuracy"]["tasks"]
    columns = ("task", "rows", "exact match", "ROUGE-L", "BLEU", "chrF", "eval_loss")
    lines = tuple(
        Line(
            (
                printable_line(task),
                _number(scores.get("rows"), "{}"),
                _with_interval(scores),
                _number(scores["rouge_l"], "{:.3f}"),
                _number(scores["bleu"], "{:.1f}"),
                _number(scores.get("chrf"), "{:.1f}"),
                _number(scores["eval_loss"], "{:.3f}"),
            )
        )
        for task, scores in tasks.items()
    )
    return Table(f"Tasks: {labels(document)[index]}", columns, 1, lines)


def notes(document: Document) -> list[str]:
    """Notes for readers of the tables."""
    results, machine = document["results"], document["machine"]
    found: list[str] = []
    measured = [one for one in results if one["latency"]]
    if measured:
        runs = _range([one["latency"]["runs"] for one in measured], "{:d}")
        tokens = [n for one in measured if (n := one["latency"].get("new_tokens")) is not None]
        length = f", {_range(tokens, '{:.0f}')} new tokens on average" if tokens else ""
        threads = _range([n for one in measured if (n := one.get("threads"))], "{}")
        found.append(
            f"{runs} timed calls of each artifact, text to text{length}; in separate"
            f" processes that take turns; {threads} thread(s), {printable_line(machine['cpu'])}."
        )
    if document.get("interrupted"):
        found.append("The run was interrupted; missing values were not measured.")
    found += [printable_line(one["sentence"]) for one in document.get("regressions", ())]
    found += map(printable_line, document.get("notes", ()))
    for result, label in zip(results, labels(document), strict=True):
        if result.get("error"):
            found.append(f"{label}: {printable_line(result['error'])}")
        elif result["verdict"] == "not shown" and result.get("verdict_reason"):
            found.append(f"{label}: {printable_line(result['verdict_reason'])}")
    accuracies = [one["accuracy"] for one in results if one["accuracy"]]
    index = winner_index(document)
    if index is not None and (fit := document["results"][index]["accuracy"].get("fit")):
        bands = " and ".join(f"{band} by {name}" for name, band in fit.items())
        found.append(f"Fit of {labels(document)[index]}: {bands}.")
    sources = sorted({a["reference"] for a in accuracies if a.get("reference")})
    if sources:
        names = ", ".join(map(printable_line, sources))
        found.append(f"= source: ratio of answers identical to those of {names}.")
    if measured and all(one["latency"].get("joules_per_answer") is None for one in measured):
        found.append("Energy per answer: not measured (no RAPL counters that this user may read).")
    if any(a.get("intervals") for a in accuracies):
        found.append("Exact match with its 95 % bootstrap interval.")
    cut = max((a.get("truncated", 0) for a in accuracies), default=0)
    if cut:
        found.append(f"{cut} inputs were longer than the artifact's limit and were truncated.")
    return found


def machine_lines(document: Document) -> list[tuple[str, str]]:
    """Date, data, machine and settings as (name, value), in the document's order."""
    data = document["data"]
    lines = [("date", document["created"])]
    lines += [(f"data {name}", _plain(value)) for name, value in data.items()]
    for group in (document["machine"], document.get("settings") or {}):
        lines += [(name.replace("_", " "), _plain(value)) for name, value in group.items()]
    return [(printable_line(name), printable_line(value)) for name, value in lines if value]


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)


def _number(value: Any, form: str) -> str:
    return _NOTHING if value is None else form.format(value)


def _with_interval(scores: Mapping[str, Any]) -> str:
    """Exact match with its interval, as percentages."""
    if "exact_match" not in scores:
        return _NOTHING
    shown = f"{scores['exact_match']:.1%}"
    interval = scores.get("intervals", {}).get("exact_match")
    if interval is None:
        return shown
    return f"{shown} ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"


def _quartiles(latency: Mapping[str, Any]) -> str:
    shown = _number(latency.get("p50"), "{:.1f}")
    low, high = latency.get("p25"), latency.get("p75")
    return shown if low is None or high is None else f"{shown} ({low:.1f}–{high:.1f})"


def _range(values: list[Any], form: str) -> str:
    shown: Callable[[Any], str] = form.format
    low, high = shown(min(values, default=0)), shown(max(values, default=0))
    return low if low == high else f"{low} to {high}"
