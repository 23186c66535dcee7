"""Tables of `edge bench-engines --batch`: answers per second, and the cost of a decoder step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.engines.results import EngineReport, EngineRow


def batch_table(report: EngineReport) -> Table:
    """Answers per second: the median, its spread and the ratios; then the rooflines."""
    from rich.text import Text

    title = (
        f"{report.model}: answers per second by batch size"
        " (p5–p95; × best baseline of the same bits; × roofline)"
    )
    table = _by_size(report, title, _speed_cell)
    limits = {(one.bits, one.batch): one for one in report.batch_rooflines}
    for bits in sorted({one.bits for one in report.batch_rooflines}):
        found = (limits[bits, size] for size in report.settings.batches)
        values = [f"{one.answers_per_second:.1f}" for one in found]
        table.add_row(Text("roofline", "italic"), f"{bits} bits", *values)
    return table


def step_table(report: EngineReport) -> Table:
    """Milliseconds per decoder step of a whole batch, and over those of the smallest batch."""
    smallest = min(report.settings.batches)
    title = f"{report.model}: ms per decoder step by batch size (× that of batch {smallest})"
    return _by_size(report, title, _step_cell)


def _by_size(
    report: EngineReport, title: str, cell: Callable[[EngineReport, EngineRow, int], str]
) -> Table:
    """One line per engine, one column per batch size."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    table.add_column("engine")
    table.add_column("quantization")
    sizes = report.settings.batches
    for size in sizes:
        table.add_column(f"batch {size}", justify="right")
    for row in report.rows:
        if not row.batches:
            continue
        cells = [cell(report, row, size) for size in sizes]
        style = "" if row.is_baseline else "bold"
        table.add_row(Text(row.engine, style), Text(row.quantization), *map(Text, cells))
    return table


def _step_cell(report: EngineReport, row: EngineRow, size: int) -> str:
    found, smallest = row.batch(size), row.batch(min(report.settings.batches))
    if found is None:
        return ""
    ratio = f" {found.step_ms / smallest.step_ms:.2f}×" if smallest else ""
    return f"{found.step_ms:.2f}{ratio}"


def _speed_cell(report: EngineReport, row: EngineRow, size: int) -> str:
    speed = row.batch(size)
    if speed is None:
        return "failed" if any(one.batch == size for one in row.batches) else ""
    slow, fast = (size / ms * 1000 for ms in (speed.p95, speed.p5))
    text = f"{speed.answers_per_second:.1f} ({slow:.1f}–{fast:.1f})"
    ratios = [report.batch_times_faster(row, size), report.batch_times_roofline(row, size)]
    return " ".join([text, *(f"{ratio:.2f}×" if ratio else "–" for ratio in ratios)])
