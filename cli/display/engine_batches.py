"""Tables of `edge bench-engines --batch`: answers per second, and the cost of a decoder step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.engines.results import EngineReport, EngineRow


def batch_table(report: EngineReport) -> Table:
    """One line per engine, one column per batch size: the median, its spread and the ratios."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{report.model}: answers per second by batch size"
        " (p5–p95; × best baseline of the same bits; × roofline)"
    )
    table.add_column("engine")
    table.add_column("quantization")
    sizes = report.settings.batches
    for size in sizes:
        table.add_column(f"batch {size}", justify="right")
    for row in report.rows:
        if not row.batches:
            continue
        cells = [_cell(report, row, size) for size in sizes]
        style = "" if row.is_baseline else "bold"
        table.add_row(Text(row.engine, style), Text(row.quantization), *map(Text, cells))
    limits = {(one.bits, one.batch): one for one in report.batch_rooflines}
    for bits in sorted({one.bits for one in report.batch_rooflines}):
        values = [f"{limits[bits, size].answers_per_second:.1f}" for size in sizes]
        table.add_row(Text("roofline", "italic"), f"{bits} bits", *values)
    return table


def step_table(report: EngineReport) -> Table:
    """Milliseconds per decoder step of a whole batch, and over those of the smallest batch."""
    from rich.table import Table
    from rich.text import Text

    sizes = report.settings.batches
    table = Table(
        title=f"{report.model}: ms per decoder step by batch size (× that of batch {min(sizes)})"
    )
    table.add_column("engine")
    table.add_column("quantization")
    for size in sizes:
        table.add_column(f"batch {size}", justify="right")
    for row in report.rows:
        if not row.batches:
            continue
        one = row.batch(min(sizes))
        cells = []
        for size in sizes:
            found = row.batch(size)
            ratio = f" {found.step_ms / one.step_ms:.2f}×" if found and one else ""
            cells.append(f"{found.step_ms:.2f}{ratio}" if found else "")
        style = "" if row.is_baseline else "bold"
        table.add_row(Text(row.engine, style), Text(row.quantization), *map(Text, cells))
    return table


def _cell(report: EngineReport, row: EngineRow, size: int) -> str:
    speed = row.batch(size)
    if speed is None:
        return "failed" if any(one.batch == size for one in row.batches) else ""
    slow, fast = (size / ms * 1000 for ms in (speed.p95, speed.p5))
    text = f"{speed.answers_per_second:.1f} ({slow:.1f}–{fast:.1f})"
    ratios = [report.batch_times_faster(row, size), report.batch_times_roofline(row, size)]
    return " ".join([text, *(f"{ratio:.2f}×" if ratio else "–" for ratio in ratios)])
