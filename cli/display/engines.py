"""Progress, tables and notes of `edge bench-engines`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.display.engine_batches import batch_table, step_table
from edge.cli.display.engine_notes import MAX_REASON, report_notes
from edge.cli.display.json_output import STDOUT, tables_beside, write_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edge.bench.engines.cache import Prepared
    from edge.bench.engines.results import EngineReport, EngineRow, Settings
    from edge.bench.engines.scaling import Scaling
    from edge.export.publish import Target
    from edge.export.source import SourceModel
    from edge.runtime.artifact.manifest import Architecture


def bench_engines(
    models: Sequence[str],
    targets: Sequence[Target],
    settings: Settings,
    *,
    cache: Path | None,
    baselines: bool,
    scaling: bool,
    json_file: Path | None,
) -> None:
    """Measure each shape or model, print its tables when it is done, and write the reports.

    Raises:
        UsageError: A name is neither a shape nor a model, or a batch does not fit into memory.
        ModelError: A model can't be read.
        TerminatedError: SIGTERM or SIGHUP; what was measured is printed and written.
        TargetMissedError: On some model, none of edge's engines meets the target.
    """
    from edge.bench.engines.baselines.table import BASELINES
    from edge.bench.engines.cache import default_cache
    from edge.bench.report.write import Outputs
    from edge.bench.signals import signals_end_command
    from edge.runtime.errors import TargetMissedError

    Outputs(json=json_file).check()
    sources = {model: _open_source(model) for model in models}  # finds wrong names before any work
    for model, source in sources.items():
        _check_batches(model, source, settings)
    reports: list[EngineReport] = []

    def kept() -> str:
        return "the report holds what was measured" if reports else "nothing was measured yet"

    more = {"baselines": tuple(BASELINES) if baselines else (), "scaling": scaling}
    with signals_end_command(kept):
        _measure_all(sources, targets, settings, reports, cache or default_cache(), json_file, more)
    missed = [report for report in reports if not report.any_meets_target]
    if missed:
        raise TargetMissedError("; ".join(_missed(report) for report in missed))


def _measure_all(
    sources: Mapping[str, SourceModel | None],
    targets: Sequence[Target],
    settings: Settings,
    reports: list[EngineReport],
    cache: Path,
    json_file: Path | None,
    more: dict[str, Any],
) -> None:
    """Measure each model, print its tables and write the reports; `reports` gets each report.

    Raises:
        EnginesInterruptedError: A signal; what was measured is printed and written.
    """
    from edge.bench.engines.results import EnginesInterruptedError, engines_document
    from edge.bench.engines.run import run_engines
    from edge.cli.display.console import PhaseBars, status

    stopped: EnginesInterruptedError | None = None
    for model, source in sources.items():
        action = "writing random weights of" if source is None else "reading"
        with status(f"{action} {model}"):
            prepared, shape = _prepare(model, source, cache)
        with PhaseBars() as bars:
            try:
                report = run_engines(
                    model,
                    prepared,
                    shape,
                    targets,
                    settings,
                    random_weights=source is None,
                    **more,
                    on_progress=lambda phase, what, done, of: bars.show(
                        phase, done, of, f"{phase} {what}".strip()
                    ),
                )
            except EnginesInterruptedError as error:
                stopped, report = error, error.report
        reports.append(report)
        # After a hang-up there is no terminal to print to.
        lost = contextlib.suppress(OSError) if stopped else contextlib.nullcontext()
        with tables_beside(json_file), lost:
            print_report(report)
        if json_file is not None and json_file != STDOUT:
            # After each model, since a later one may be interrupted.
            write_json(engines_document(reports), json_file)
        if stopped is not None:
            break
    if json_file == STDOUT:
        write_json(engines_document(reports), STDOUT)
    if stopped is not None:
        raise stopped


def _open_source(model: str) -> SourceModel | None:
    """The model of a folder or hub id, or None for the name of a shape."""
    from edge.bench.engines.shapes import shape_of
    from edge.export.source import SourceModel

    if Path(model).is_dir() or "/" in model:
        return SourceModel.open(model)
    shape_of(model)
    return None


def _check_batches(model: str, source: SourceModel | None, settings: Settings) -> None:
    from edge.bench.engines.batches import check_batches
    from edge.bench.engines.shapes import shape_of

    shape = shape_of(model) if source is None else source.architecture
    lengths = {"input_tokens": settings.input_tokens, "new_tokens": settings.new_tokens}
    check_batches(model, shape, settings.batches, **lengths)


def _prepare(model: str, source: SourceModel | None, cache: Path) -> tuple[Prepared, Architecture]:
    from edge.bench.engines.cache import Prepared
    from edge.bench.engines.shapes import shape_of

    if source is None:
        return Prepared.of_shape(model, cache), shape_of(model)
    return Prepared.of_model(source, cache), source.architecture


def _missed(report: EngineReport) -> str:
    target = f"the target {report.settings.target_ms:g} ms"
    own = [
        (row.speed.p95, row.name, row) for row in report.rows if not row.is_baseline and row.speed
    ]
    if not own:
        return f"{report.model}: no artifact meets {target}: none could be measured"
    p95, name, row = min(own, key=lambda one: one[:2])
    best = f"the best p95 is {p95:.1f} ms ({name})"
    verdicts = [verdict for *_, row in own if (verdict := report.verdict(row))]
    if all(verdict.word == "misses" for verdict in verdicts):
        return f"{report.model}: no artifact meets {target}: {best}"
    verdict = report.verdict(row)
    reason = verdict.reason if verdict else ""
    return f"{report.model}: no artifact meets {target} with 99 % confidence: {best}, {reason}"


def print_report(report: EngineReport) -> None:
    """Print the tables and notes of one model."""
    from edge.cli.display.tables import print_table

    print_table(engine_table(report), important=("quantization", "p50", "p95"))
    for scaling in report.scaling:
        print_table(scaling_table(scaling))
    if report.settings.batches:
        print_table(batch_table(report), important=("quantization",))
        print_table(step_table(report), important=("quantization",))
    for note in report_notes(report):
        click.echo(note)


def engine_table(report: EngineReport) -> Table:
    """One line per engine: first edge's, then the baselines."""
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


def _reason(row: EngineRow) -> Text:
    from rich.text import Text

    short = len(row.failure) <= MAX_REASON
    return Text(row.failure if short else row.failure[: MAX_REASON - 1] + "…", "yellow")


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def scaling_table(scaling: Scaling) -> Table:
    """Latency of an answer at growing lengths."""
    from rich.table import Table

    table = Table(title=f"{scaling.name}: slowest token ÷ fastest {scaling.flatness:.2f}")
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
