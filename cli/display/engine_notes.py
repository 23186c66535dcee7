"""Notes below the tables of `edge bench-engines`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.bench.engines.results import EngineReport

MAX_REASON = 60  # characters of a failure in the table; a longer one becomes a note
_BASE_MEMORY = 80e6  # bytes: Python, numpy and the engine itself


def report_notes(report: EngineReport) -> list[str]:
    """How the table was measured, memory use, and long failure reasons."""
    settings, machine = report.settings, report.machine
    rooflines = ", ".join(
        f"{roofline.ms:.1f} ms at {bits} bits ({roofline.once_ms:.1f} once, then"
        f" {roofline.token_ms:.2f} for the {roofline.bytes_per_token / 1e6:.0f} MB of each token)"
        for bits, roofline in report.rooflines.items()
    )
    matrices = report.matrix_rate
    notes = [
        f"{settings.runs} answers per engine: batch 1, greedy search, exactly"
        f" {settings.new_tokens} new tokens. Each engine runs in a separate process, with its"
        f" fastest number of threads up to {settings.threads}; the processes take turns."
        f" {machine['cores']} cores, {machine['cpu']}.",
    ]
    if rooflines:
        notes.append(
            f"Roofline: decoder weights read once per token at {report.bandwidth / 1e9:.1f} GB/s,"
            f" and once the multiply-adds of encoder and cross-attention at"
            f" {matrices.macs_per_second / 1e9:.0f} billion a second ({matrices.name}), both"
            f" measured in this run: {rooflines}."
        )
    for row in report.rows:
        # For a small artifact, the memory of the libraries outweighs the memory of the model.
        if not row.is_baseline and row.speed and row.size >= _BASE_MEMORY / 4:
            now, peak = ((n - _BASE_MEMORY) / row.size for n in (row.speed.rss, row.speed.peak_rss))
            notes.append(
                f"{row.name}: resident memory is 80 MB + {now:.2f} × the artifact"
                f" ({peak:.2f} × while loading)."
            )
    failed = [row for row in report.rows if row.failure]
    notes += [f"{row.name}: {row.failure}" for row in failed if len(row.failure) > MAX_REASON]
    return notes + _batch_failures(report)


def _batch_failures(report: EngineReport) -> list[str]:
    """A line for each engine that failed in a batch, with the smallest size."""
    lines = []
    for row in report.rows:
        failed = [one for one in row.batches if one.failure and not row.failure]
        if failed:
            lines.append(f"{row.name}, batch {failed[0].batch}: {failed[0].failure}")
    return lines
