"""The table of `edge bench ARTIFACTS --data`, and the notes below it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.results import Report, Result


def report_table(report: Report) -> Table:
    """The table of a report, one line for each artifact and way to ask it, in the order given."""
    from rich.table import Table
    from rich.text import Text

    from edge.cli.verdict_text import verdict_text

    table = Table(title=f"{report.rows} rows, p95 target {report.target_ms:g} ms")
    settings = report.settings
    # Columns that would say the same on every line are left out.
    axes = [name for name in ("batch", "concurrency") if getattr(settings, name) != (1,)]
    table.add_column("format")
    table.add_column("quantisation")
    figures = ("size", "exact match", "ROUGE-L", "BLEU", "eval_loss", "p50", "p95", "tokens/s")
    for name in (*axes, *figures):
        table.add_column(name, justify="right")
    table.add_column(f"≤ {report.target_ms:g} ms")
    for result in report.results:
        verdict = (
            Text(_short(result.error), "yellow") if result.error else verdict_text(result.verdict)
        )
        table.add_row(
            Text(result.format),
            Text(result.quantization),
            *(str(getattr(result, name)) for name in axes),
            f"{result.size_mb:.1f} MB",
            *_accuracy_cells(result),
            *_latency_cells(result),
            verdict,
        )
    return table


def _accuracy_cells(result: Result) -> tuple[str, ...]:
    accuracy = result.accuracy
    if accuracy is None:
        return ("",) * 4
    return (
        f"{accuracy.exact_match:.1%}",
        f"{accuracy.rouge_l:.3f}",
        f"{accuracy.bleu:.1f}",
        f"{accuracy.eval_loss:.3f}",
    )


def _latency_cells(result: Result) -> tuple[str, ...]:
    latency = result.latency
    if latency is None:
        return ("",) * 3
    return (
        f"{latency.p50:.1f} ms ({latency.p25:.1f}–{latency.p75:.1f})",
        f"{latency.p95:.1f} ms",
        f"{latency.tokens_per_second:.0f}",
    )


def _short(reason: str) -> str:
    return reason if len(reason) <= 60 else reason[:59] + "…"


def report_notes(report: Report) -> list[str]:
    """What a reader of the table has to know."""
    notes = [_how(report)] if report.measured else []
    cut = max(
        (result.accuracy.truncated for result in report.results if result.accuracy), default=0
    )
    if cut:
        notes.append(f"{cut} inputs were longer than the artifact's limit and were cut.")
    notes += report.notes
    for result in report.results:
        if result.error and len(result.error) > 60:
            notes.append(f"{result.artifact}: {result.error}")
        elif result.error is None and result.verdict == "not shown":
            notes.append(f"{result.artifact}: not shown, {result.verdict_reason}.")
    return list(dict.fromkeys(notes))


def _how(report: Report) -> str:
    """How the figures were found, in a sentence."""
    machine = report.machine
    latencies = [result.latency for result in report.measured if result.latency is not None]
    threads = sorted({result.threads for result in report.measured})
    settings = dataclasses.asdict(report.settings)
    axes = "".join(
        f" {name} {'/'.join(map(str, settings[name]))}," for name in ("batch", "concurrency")
    )
    length = (
        f"{latencies[0].new_tokens:.0f} new tokens on average"
        if report.settings.new_tokens is None
        else f"exactly {report.settings.new_tokens} new tokens"
    )
    return (
        f"p50 with its quartiles, from at least {min(one.runs for one in latencies)} calls each,"
        f" text to text, one process each, taking turns,{axes} greedy, {length};"
        f" {'/'.join(map(str, threads))} thread(s) of {machine['cores']} cores, {machine['cpu']}."
    )
