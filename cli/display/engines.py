"""`edge bench --arch`: the engine benchmark run, its tables and its notes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table

    from edge.bench.engines.cache import Prepared
    from edge.bench.engines.results import EngineReport, EngineRow, Settings
    from edge.bench.engines.scaling import Scaling
    from edge.export.publish import Target
    from edge.export.source import SourceModel
    from edge.runtime.artifact.manifest import Architecture


def bench_shapes(
    archs: Sequence[str],
    targets: Sequence[Target],
    settings: Settings,
    *,
    cache: Path | None,
    baselines: bool,
    scaling: bool,
    json_file: Path | None,
) -> None:
    """Measure every shape or model, print its tables as soon as they are there, and write the
    reports.

    Raises:
        UsageError, ModelError: no such shape, and no such model either.
        TargetMissedError: none of our artifacts meets the target, on some shape.
    """
    from edge.bench.engines.baselines.table import BASELINES
    from edge.bench.engines.cache import default_cache
    from edge.bench.engines.results import EnginesInterruptedError, engines_document
    from edge.bench.engines.run import run_engines
    from edge.cli.display.console import progress_bar, status
    from edge.runtime.errors import TargetMissedError
    from edge.runtime.platform.atomic import new_file

    models = {arch: _opened(arch) for arch in archs}  # a wrong name before any work
    reports: list[EngineReport] = []
    for arch, source in models.items():
        with status(f"writing random weights of {arch}" if source is None else f"reading {arch}"):
            prepared, shape = _prepared(arch, source, cache or default_cache())
        with progress_bar() as progress:
            tasks: dict[str, TaskID] = {}

            def on_progress(
                phase: str,
                what: str,
                done: int,
                of: int,
                *,
                progress: Any = progress,
                tasks: Any = tasks,
            ) -> None:
                if phase not in tasks:
                    tasks[phase] = progress.add_task(phase, total=of)
                label = f"{phase} {what}".strip()
                progress.update(tasks[phase], completed=done, total=of, description=label)

            stopped = None
            try:
                report = run_engines(
                    arch,
                    prepared,
                    shape,
                    targets,
                    settings,
                    random_weights=source is None,
                    baselines=tuple(BASELINES) if baselines else (),
                    scaling=scaling,
                    on_progress=on_progress,
                )
            except EnginesInterruptedError as error:
                stopped, report = error, error.report
        reports.append(report)
        print_report(report)
        if json_file is not None:  # after every shape: a later one may be interrupted
            values = engines_document(reports)
            with new_file(json_file) as staging:
                staging.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if stopped is not None:
            raise stopped
    missed = [report for report in reports if not report.any_meets_target]
    if missed:
        raise TargetMissedError("; ".join(_missed(report) for report in missed))


def _opened(arch: str) -> SourceModel | None:
    """The model of that folder or hub id; None for the name of a shape.

    Raises:
        UsageError, ModelError: it is neither.
    """
    from edge.bench.engines.shapes import shape_of
    from edge.export.source import SourceModel

    if Path(arch).is_dir() or "/" in arch:
        return SourceModel.open(arch)
    shape_of(arch)
    return None


def _prepared(arch: str, source: SourceModel | None, cache: Path) -> tuple[Prepared, Architecture]:
    from edge.bench.engines.cache import Prepared
    from edge.bench.engines.shapes import shape_of

    if source is None:
        return Prepared.of_shape(arch, cache), shape_of(arch)
    return Prepared.of_model(source, cache), source.architecture


def _missed(report: EngineReport) -> str:
    own = [
        (row.speed.p95, row.name, row) for row in report.rows if not row.is_baseline and row.speed
    ]
    target = f"the target {report.settings.target_ms:g} ms"
    if not own:
        return f"{report.model}: no artifact meets {target}: none could be measured"
    p95, name, row = min(own, key=lambda one: one[:2])
    best = f"the best p95 is {p95:.1f} ms ({name})"
    verdicts = [verdict for *_, row in own if (verdict := report.verdict(row))]
    if all(verdict.word == "misses" for verdict in verdicts):
        return f"{report.model}: no artifact meets {target}: {best}"
    verdict = report.verdict(row)
    why = verdict.reason if verdict else ""
    return f"{report.model}: no artifact is shown to meet {target}: {best}, {why}"


def print_report(report: EngineReport) -> None:
    from edge.cli.display.console import stdout_console

    console = stdout_console()
    console.print(engine_table(report))
    for scaling in report.scaling:
        console.print(scaling_table(scaling))
    for note in report_notes(report):
        click.echo(note)


def engine_table(report: EngineReport) -> Table:
    """One line for each engine: ours first, then the baselines."""
    from rich.table import Table
    from rich.text import Text

    from edge.cli.display.verdict import verdict_text

    settings = report.settings
    kind = ", random weights: speed only" if report.random_weights else ""
    table = Table(
        title=f"{report.model}{kind}: {settings.input_tokens} tokens in, {settings.new_tokens} out"
    )
    table.add_column("engine")
    table.add_column("quantization")
    compared = any(row.is_baseline for row in report.rows)
    numbers = ["threads", "size", "load", "p50 (p5–p95)", "per token", "RSS (peak)"]
    for name in [*numbers, *(["× best baseline"] if compared else []), "× roofline"]:
        table.add_column(name, justify="right")
    table.add_column(f"p95 ≤ {settings.target_ms:g} ms")
    for row in report.rows:
        if row.speed is None:
            # Over the figures' place: a reason is longer than a column is wide.
            blanks = [""] * (len(numbers) + compared + 1)
            table.add_row(Text(row.engine), Text(row.quantization), *blanks, _reason(row))
            continue
        speed = row.speed
        verdict = report.verdict(row)
        table.add_row(
            Text(row.engine, "" if row.is_baseline else "bold"),
            Text(row.quantization),
            str(speed.threads),
            f"{row.size / 1e6:.1f} MB",
            f"{speed.load_ms:.0f} ms",
            f"{speed.p50:.1f} ms ({speed.p5:.1f}–{speed.p95:.1f})",
            f"{speed.per_token_ms:.2f} ms",
            f"{speed.rss / 1e6:.0f} ({speed.peak_rss / 1e6:.0f}) MB",
            *([_times(report.times_faster(row))] if compared else []),
            _times(report.times_roofline(row)),
            verdict_text(verdict.word) if verdict else "",
        )
    return table


def _reason(row: EngineRow) -> Any:
    from rich.text import Text

    return Text(row.failure if len(row.failure) <= 60 else row.failure[:59] + "…", "yellow")


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def scaling_table(scaling: Scaling) -> Table:
    """What an answer costs at growing lengths."""
    from rich.table import Table

    table = Table(title=f"{scaling.name}: slowest token over fastest {scaling.flatness:.2f}")
    for name in ("tokens in", "tokens out", "p50", "first token", "per token"):
        table.add_column(name, justify="right")
    for points in (scaling.by_new_tokens, scaling.by_input_tokens):
        for point in points:
            table.add_row(
                str(point.input_tokens),
                str(point.new_tokens),
                f"{point.ms:.1f} ms",
                f"{point.first_ms:.1f} ms",
                f"{point.per_token_ms:.2f} ms",
            )
        table.add_section()
    return table


def report_notes(report: EngineReport) -> list[str]:
    """What a reader of the table has to know."""
    settings, machine = report.settings, report.machine
    rooflines = ", ".join(
        f"{roofline.ms:.1f} ms at {bits} bits ({roofline.bytes_per_token / 1e6:.0f} MB per token,"
        f" {roofline.encoder_ms:.1f} ms once)"
        for bits, roofline in report.rooflines.items()
    )
    notes = [
        f"{settings.runs} answers of each engine, batch 1, greedy, exactly {settings.new_tokens}"
        f" new tokens, one process each, taking turns; the best number of threads up to"
        f" {settings.threads} of {machine['cores']} cores, {machine['cpu']}.",
        f"Roofline: decoder weights read once per token at {report.bandwidth / 1e9:.1f} GB/s,"
        f" measured in this run: {rooflines}.",
    ]
    for row in report.rows:
        # Of less, the libraries' own memory says more than the artifact's.
        if not row.is_baseline and row.speed and row.size >= _ALLOWANCE / 4:
            now, most = ((n - _ALLOWANCE) / row.size for n in (row.speed.rss, row.speed.peak_rss))
            notes.append(
                f"{row.name}: resident memory is 80 MB + {now:.2f} × the artifact"
                f" ({most:.2f} × while loading)."
            )
    failed = [row for row in report.rows if row.failure]
    notes += [f"{row.name}: {row.failure}" for row in failed if len(row.failure) > 60]
    return notes


_ALLOWANCE = 80e6  # bytes: Python, numpy and the engine itself
