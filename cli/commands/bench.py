"""`edge bench`: artifacts compared on the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.display.bench import REPORT_NAMES, measure, report_options, report_outputs
from edge.cli.options import column_options, numbers, threads_option

if TYPE_CHECKING:
    from edge.bench.artifacts.results import Report


@click.command()
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Rows with targets.")
@click.option("--target-ms", type=float, default=100.0, show_default=True, help="p95 to meet.")
@click.option(
    "--runs", type=int, help="Timed calls of each, at least [default: 100; with --speculation 30]."
)
@click.option("--seconds", type=float, help="Timed calls for so long, at least [default: 1].")
@click.option(
    "--batch", callback=numbers, metavar="N,…", help="Inputs in a call, such as 1,8 [default: 1]."
)
@click.option(
    "--concurrency", callback=numbers, metavar="N,…", help="Threads that call at once [default: 1]."
)
@click.option("--limit", type=click.IntRange(1), help="Use the first rows only: a quick look.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@report_options
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Compare answers with this artifact's or model folder's [default: the float32 artifact of"
    " the same model].",
)
@click.option(
    "--compare",
    "old_file",
    type=click.Path(path_type=Path),
    help="Show p50 and p95 as ratios to this report of an earlier run.",
)
@click.option(
    "--fail-slower",
    type=click.FloatRange(1.0),
    metavar="RATIO",
    help="With --compare: exit with 1 if a p50 is more than so many times the old one.",
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
    help="Measure the speed of this shape with random weights, or of this model folder, instead of"
    " ARTIFACTS (repeatable).",
)
@click.option("--format", "formats", multiple=True, help="With --arch: formats [default: all].")
@click.option("--quantize", "quantizations", multiple=True, help="With --arch: as edge export.")
@click.option(
    "--input-tokens", type=click.IntRange(2, 512), help="With --arch: tokens in [default: 32]."
)
@click.option(
    "--new-tokens",
    type=click.IntRange(2, 512),
    help="Tokens out, exactly [default: to each answer's end; with --arch 16].",
)
@click.option("--baselines", is_flag=True, help="With --arch: other engines in the same run, too.")
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
    seconds: float | None,
    batch: tuple[int, ...] | None,
    concurrency: tuple[int, ...] | None,
    limit: int | None,
    json_file: Path | None,
    old_file: Path | None,
    fail_slower: float | None,
    speculation: bool,
    input_column: str,
    target_column: str,
    threads: int | None,
    **other: Any,
) -> None:
    """Compare ARTIFACTS: accuracy on --data, and latency against --target-ms.

    A folder that holds several artifacts stands for all of them. Latency is from text to text,
    greedy, each artifact in a process of its own, taking turns. With --arch no weights are needed:
    would a model of this shape meet the target on this machine? Each engine gets the number of
    threads up to --threads (default 2) that is fastest for it. Exits with 3 if none is shown to
    meet the target: p95 at 99 % confidence, for which 90 runs is the least.
    """
    from edge.runtime.errors import UsageError

    of_data = {
        "--seconds": seconds,
        "--batch": batch,
        "--concurrency": concurrency,
        "--compare": old_file,
        "--reference": other["reference"],
        **{_option(name): other[name] for name in REPORT_NAMES},
    }
    _check_combination(artifacts, data, limit, speculation, of_data, other)
    if fail_slower is not None and old_file is None:
        raise UsageError("--fail-slower needs --compare")
    outputs = report_outputs(other, json_file)
    if other["archs"]:
        _bench_shapes(target_ms, runs, threads, json_file, other)
        return
    if not artifacts or data is None:
        missing = "ARTIFACTS" if not artifacts else "--data"
        raise UsageError(f"{missing} is missing (--arch SHAPE measures a shape without weights)")
    from edge.cli.display.console import quiet_libraries
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.rows import Columns, dev_file, read_rows

    quiet_libraries()
    path = dev_file(data)
    rows = read_rows(path, Columns(input=input_column, target=target_column))[:limit]
    folders = [folder for given in artifacts for folder in find_artifacts(given)]
    if speculation:
        from edge.cli.display.speculation import bench_speculation

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
    from edge.bench.artifacts.results import BenchSettings
    from edge.bench.report.document import read_document
    from edge.cli.display.comparison import check_regressions, print_comparison

    # Before minutes of measuring.
    old = read_document(old_file) if old_file is not None else None
    settings = BenchSettings(
        runs=BenchSettings.runs if runs is None else runs,
        seconds=1.0 if seconds is None else seconds,
        batch=batch or (1,),
        concurrency=concurrency or (1,),
        new_tokens=other["new_tokens"],
    )
    report = measure(
        folders,
        rows,
        target_ms,
        settings,
        outputs,
        threads=threads,
        data=path,
        reference=other["reference"],
    )
    if old is not None:
        check_regressions(print_comparison(old, report.as_json()), fail_slower)
    check_target(report)


def check_target(report: Report) -> None:
    """Nothing, where an artifact is shown to meet the target.

    Raises:
        EdgeError: nothing could be measured.
        TargetMissedError: none is shown to meet it.
    """
    from edge.runtime.errors import EdgeError, TargetMissedError

    if report.any_meets_target:
        return
    times = [(r.latency.p95, r) for r in report.measured if r.latency is not None]
    if not times:
        first = report.results[0]
        raise EdgeError(f"nothing could be measured: {first.artifact}: {first.error}")
    p95, best = min(times, key=lambda pair: pair[0])
    if report.all_miss_target:
        raise TargetMissedError(
            f"no artifact meets the target: the best p95 is {p95:.1f} ms"
            f" ({best.artifact}), the target {report.target_ms:g} ms"
        )
    raise TargetMissedError(
        f"no artifact is shown to meet the target: the best p95 is {p95:.1f} ms ({best.artifact}),"
        f" {best.verdict_reason}"
    )


# Options of `--arch` and of `--speculation`, which mean nothing without it.
_OF_ARCH = ("formats", "quantizations", "input_tokens", "baselines", "scaling")
_OF_SPECULATION = ("draft_tokens", "replay")


def _check_combination(
    artifacts: tuple[Path, ...],
    data: Path | None,
    limit: int | None,
    speculation: bool,
    of_data: dict[str, Any],
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
        **of_data,
    }
    if other["archs"]:
        for name, value in with_data.items():
            if value not in (None, (), False):
                raise UsageError(f"--arch measures speed alone: leave out {name}")
    if speculation:
        for name, value in {**of_data, "--new-tokens": other["new_tokens"]}.items():
            if value is not None:
                raise UsageError(f"--speculation measures in a way of its own: leave out {name}")
    for needed, given, names in (
        ("--arch with a shape or a model folder", bool(other["archs"]), _OF_ARCH),
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
    from edge.bench.engines.cache import choose_targets
    from edge.bench.engines.run import Settings
    from edge.cli.display.console import quiet_libraries
    from edge.cli.display.engines import bench_shapes

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
        baselines=other["baselines"],
        scaling=other["scaling"],
        json_file=json_file,
    )
