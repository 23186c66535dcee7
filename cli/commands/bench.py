"""`edge bench`: artifacts compared on the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.bench_report import (
    REPORT_NAMES,
    command_line,
    report_options,
    report_outputs,
    show,
)
from edge.cli.options import column_options, threads_option

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge.bench.runner import Report
    from edge.runtime.rows import Row


@click.command()
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Rows with targets.")
@click.option("--target-ms", type=float, default=100.0, show_default=True, help="p95 to meet.")
@click.option("--runs", type=int, help="Timed answers of each [default: 100; with --arch 30].")
@click.option("--limit", type=click.IntRange(1), help="Use the first rows only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@report_options
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Compare answers with this artifact's or model folder's [default: the float32 artifact of"
    " the same model].",
)
@click.option(
    "--speculation",
    is_flag=True,
    help="Measure drafts from the input against plain greedy search (onnx).",
)
@click.option(
    "--draft-tokens", type=click.IntRange(1), help="With --speculation: longest draft [default: 6]."
)
@click.option(
    "--replay", metavar="SHAPE", help="With --speculation: the same drafts on a larger shape, too."
)
@click.option(
    "--arch",
    "archs",
    multiple=True,
    metavar="SHAPE",
    help="Measure this shape with random weights instead of ARTIFACTS (repeatable).",
)
@click.option("--format", "formats", multiple=True, help="With --arch: formats [default: all].")
@click.option("--quantize", "quantizations", multiple=True, help="With --arch: as edge export.")
@click.option(
    "--input-tokens", type=click.IntRange(2, 512), help="With --arch: tokens in [default: 32]."
)
@click.option(
    "--new-tokens", type=click.IntRange(2, 512), help="With --arch: tokens out [default: 16]."
)
@click.option("--peers", is_flag=True, help="With --arch: other engines in the same run, too.")
@click.option("--scaling", is_flag=True, help="With --arch: longer answers and inputs, too.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Where random models and what is made of them are kept [default: ~/.cache/edge/bench].",
)
@column_options
@threads_option
def command(
    artifacts: tuple[Path, ...],
    data: Path | None,
    target_ms: float,
    runs: int | None,
    limit: int | None,
    json_file: Path | None,
    speculation: bool,
    input_column: str,
    target_column: str,
    threads: int | None,
    **other: Any,
) -> None:
    """Compare ARTIFACTS: accuracy on --data, and latency against --target-ms.

    A folder that holds several artifacts stands for all of them. Latency is from text to text, one
    input at a time, greedy, artifacts taking turns. With --arch no weights are needed: would a
    model of this shape meet the target on this machine? Each engine gets the number of threads up
    to --threads (default 2) that is fastest for it. Exits with 3 if none meets the target.
    """
    from edge.runtime.errors import UsageError

    _check_combination(artifacts, data, limit, speculation, other)
    outputs = report_outputs(other, json_file)
    if other["archs"]:
        _bench_shapes(target_ms, runs, threads, json_file, other)
        return
    if not artifacts or data is None:
        missing = "ARTIFACTS" if not artifacts else "--data"
        raise UsageError(f"{missing} is missing (--arch SHAPE measures a shape without weights)")
    from edge.cli.console import quiet_libraries
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.errors import TargetMissedError
    from edge.runtime.rows import Columns, read_rows, split_file

    quiet_libraries()
    path = data
    if data.is_dir():
        path = split_file(data, "dev") or data / "dev.jsonl"
    rows = read_rows(path, Columns(input=input_column, target=target_column))[:limit]
    folders = [folder for given in artifacts for folder in find_artifacts(given)]
    if speculation:
        from edge.cli.speculation_tables import bench_speculation

        bench_speculation(
            folders,
            rows,
            draft_tokens=other["draft_tokens"] or 6,
            replay=other["replay"],
            cache=other["cache"],
            runs=30 if runs is None else runs,
            threads=threads,
            json_file=json_file,
        )
        return
    from edge.bench.report.convert import document_of
    from edge.bench.report.write import write_reports

    report = measure(
        folders, rows, target_ms, 100 if runs is None else runs, threads, other["reference"]
    )
    document = document_of(report, rows, path=path, command=command_line())
    write_reports(document, outputs)
    show(document)
    if not report.any_meets_target:
        best = min(report.results, key=lambda result: result.latency.p95)
        raise TargetMissedError(
            f"no artifact meets the target: the best p95 is {best.latency.p95:.1f} ms"
            f" ({best.artifact}), the target {target_ms:g} ms"
        )


# Options of `--arch` and of `--speculation`, which mean nothing without it.
_OF_ARCH = ("formats", "quantizations", "input_tokens", "new_tokens", "peers", "scaling")
_OF_SPECULATION = ("draft_tokens", "replay")
# Options of a comparison on data, which the other two measurements have no use for.
_OF_DATA = ("reference", *REPORT_NAMES)


def _check_combination(
    artifacts: tuple[Path, ...],
    data: Path | None,
    limit: int | None,
    speculation: bool,
    other: dict[str, Any],
) -> None:
    """Refuse options that would be passed over.

    Raises:
        UsageError: options of two different measurements.
    """
    from edge.runtime.errors import UsageError

    with_data = {
        "ARTIFACTS": artifacts,
        "--data": data,
        "--limit": limit,
        "--speculation": speculation,
    }
    if other["archs"]:
        for name, value in with_data.items():
            if value:
                raise UsageError(f"--arch measures random weights: leave out {name}")
    if other["archs"] or speculation:
        for name in _OF_DATA:
            if other[name]:
                measurement = "--arch" if other["archs"] else "--speculation"
                raise UsageError(f"{_option(name)} does not go with {measurement}")
    for needed, given, names in (
        ("--arch", bool(other["archs"]), _OF_ARCH),
        ("--speculation", speculation, _OF_SPECULATION),
    ):
        for name in names:
            if other[name] and not given:
                raise UsageError(f"{_option(name)} needs {needed}")


def _option(name: str) -> str:
    names = {"formats": "--format", "quantizations": "--quantize"}
    return names.get(name, "--" + name.removesuffix("_file").removesuffix("_folder")).replace(
        "_", "-"
    )


def _bench_shapes(
    target_ms: float,
    runs: int | None,
    threads: int | None,
    json_file: Path | None,
    other: dict[str, Any],
) -> None:
    from edge.bench.engines import Settings
    from edge.bench.prepared import choose_targets
    from edge.cli.console import quiet_libraries
    from edge.cli.engine_tables import bench_shapes

    quiet_libraries()
    given = {
        "runs": runs,
        "threads": threads,
        "input_tokens": other["input_tokens"],
        "new_tokens": other["new_tokens"],
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    bench_shapes(
        other["archs"],
        choose_targets(other["formats"], other["quantizations"]),
        Settings(target_ms=target_ms, **chosen),
        cache=other["cache"],
        peers=other["peers"],
        scaling=other["scaling"],
        json_file=json_file,
    )


def measure(
    folders: Sequence[Path],
    rows: Sequence[Row],
    target_ms: float,
    runs: int,
    threads: int | None,
    reference: Path | None = None,
) -> Report:
    """Run the benchmark with a progress display."""
    from edge.bench.runner import run_bench
    from edge.cli.console import progress_bar

    with progress_bar() as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(phase: str, artifact: str, done: int, of: int) -> None:
            label = f"{phase} {Path(artifact).name}".strip()
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=of)
            progress.update(tasks[label], completed=done)

        return run_bench(
            folders,
            rows,
            target_ms=target_ms,
            runs=runs,
            threads=threads,
            reference=reference,
            on_progress=on_progress,
        )
