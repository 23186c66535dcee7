"""`edge bench`: artifacts compared on the user's data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.options import column_options, threads_option

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table

    from edge.bench.runner import Report
    from edge.runtime.rows import Row


@click.command()
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Rows with targets.")
@click.option("--target-ms", type=float, default=100.0, show_default=True, help="p95 to meet.")
@click.option("--runs", default=100, show_default=True, help="Timed answers of each artifact.")
@click.option("--limit", type=click.IntRange(1), help="Use the first rows only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@column_options
@threads_option
def command(
    artifacts: tuple[Path, ...],
    data: Path,
    target_ms: float,
    runs: int,
    limit: int | None,
    json_file: Path | None,
    input_column: str,
    target_column: str,
    threads: int | None,
) -> None:
    """Compare ARTIFACTS: accuracy on --data, and latency against --target-ms.

    A folder that holds several artifacts stands for all of them. Latency is from text to text, one
    input at a time, greedy, artifacts taking turns. Exits with 3 if none meets the target.
    """
    from edge.cli.console import quiet_libraries, stdout_console
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.errors import TargetMissedError
    from edge.runtime.rows import Columns, read_rows, split_file

    quiet_libraries()
    path = data
    if data.is_dir():
        path = split_file(data, "dev") or data / "dev.jsonl"
    rows = read_rows(path, Columns(input=input_column, target=target_column))[:limit]
    folders = [folder for given in artifacts for folder in find_artifacts(given)]
    report = measure(folders, rows, target_ms, runs, threads, json_file)
    stdout_console().print(report_table(report))
    for note in report_notes(report):
        click.echo(note)
    if not report.any_meets_target:
        best = min(report.results, key=lambda result: result.latency.p95)
        raise TargetMissedError(
            f"no artifact meets the target: the best p95 is {best.latency.p95:.1f} ms"
            f" ({best.artifact}), the target {target_ms:g} ms"
        )


def measure(
    folders: Sequence[Path],
    rows: Sequence[Row],
    target_ms: float,
    runs: int,
    threads: int | None,
    json_file: Path | None,
) -> Report:
    """Run the benchmark with a progress display, and write the report where that is asked for."""
    from edge.bench.runner import run_bench
    from edge.cli.console import progress_bar
    from edge.runtime.atomic import new_file

    with progress_bar() as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(phase: str, artifact: str, done: int, of: int) -> None:
            label = f"{phase} {Path(artifact).name}".strip()
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=of)
            progress.update(tasks[label], completed=done)

        report = run_bench(
            folders, rows, target_ms=target_ms, runs=runs, threads=threads, on_progress=on_progress
        )
    if json_file is not None:
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    return report


def report_table(report: Report) -> Table:
    """The table of a report, one line for each artifact, in the order given."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{report.rows} rows, p95 target {report.target_ms:g} ms")
    table.add_column("format")
    table.add_column("quantisation")
    for name in ("size", "exact match", "ROUGE-L", "BLEU", "eval_loss", "p50", "p95"):
        table.add_column(name, justify="right")
    table.add_column(f"≤ {report.target_ms:g} ms")
    for result in report.results:
        accuracy, latency = result.accuracy, result.latency
        table.add_row(
            Text(result.format),
            Text(result.quantization),
            f"{result.size_mb:.1f} MB",
            f"{accuracy.exact_match:.1%}",
            f"{accuracy.rouge_l:.3f}",
            f"{accuracy.bleu:.1f}",
            f"{accuracy.eval_loss:.3f}",
            f"{latency.p50:.1f} ms ({latency.p25:.1f}–{latency.p75:.1f})",
            f"{latency.p95:.1f} ms",
            Text("✓ meets", "green") if result.meets_target else Text("✗ misses", "red"),
        )
    return table


def report_notes(report: Report) -> list[str]:
    """What a reader of the table has to know."""
    machine = report.machine
    threads = sorted({result.threads for result in report.results})
    notes = [
        f"p50 with its quartiles, from {report.results[0].latency.runs} answers each, text to text,"
        f" batch 1, greedy, {report.results[0].latency.new_tokens:.0f} new tokens on average;"
        f" {'/'.join(map(str, threads))} thread(s) of {machine['cores']} cores, {machine['cpu']}."
    ]
    cut = max(result.accuracy.truncated for result in report.results)
    if cut:
        notes.append(f"{cut} inputs were longer than the artifact's limit and were cut.")
    return notes
