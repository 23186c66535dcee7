"""`edge bench`: accuracy and latency of artifacts on the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.display.bench import (
    measure,
    report_options,
    report_outputs,
    warn_of_few_runs,
)
from edge.cli.display.json_output import tables_beside
from edge.cli.options import (
    column_options,
    json_option,
    limit_option,
    threads_option,
    trust_option,
    wide_option,
)
from edge.cli.param_types import INPUT, PATH, POSITIVE, Duration, IntegerList

if TYPE_CHECKING:
    from edge.bench.artifacts.results import Report


@click.command(cls=Command)
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=PATH)
@click.option(
    "--data",
    required=True,
    type=INPUT,
    metavar="FILE",
    help="Rows with targets, or a folder with a dev split.",
)
@click.option(
    "--target-ms", type=POSITIVE, default=100.0, metavar="MS", help="Target of the p95 latency."
)
@click.option("--runs", type=int, default=100, metavar="N", help="Minimum timed calls.")
@click.option("--min-time", type=Duration(0), default="1s", help="Minimum time of the timed calls.")
@click.option(
    "--batch", type=IntegerList(), default="1", metavar="N,...", help="Inputs per call, e.g. 1,8."
)
@click.option(
    "--concurrency",
    type=IntegerList(),
    default="1",
    metavar="N,...",
    help="Threads that call at the same time, e.g. 1,4.",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(2, 512),
    metavar="N",
    show_default="to the end of each answer",
    help="Generate exactly N tokens.",
)
@limit_option
@click.option(
    "--reference",
    type=PATH,
    metavar="FOLDER",
    show_default="the float32 artifact of the same model",
    help="Artifact or model that answers are compared with.",
)
@click.option(
    "--compare", "old_file", type=INPUT, metavar="FILE", help="Also show ratios to this old report."
)
@click.option(
    "--compare-artifact",
    type=PATH,
    metavar="OLD",
    help="Also measure this artifact, in turn with the others, and exit with 1 if one is worse.",
)
@json_option("the report")
@report_options
@wide_option
@column_options
@threads_option()
@trust_option
def command(
    artifacts: tuple[Path, ...],
    data: Path,
    target_ms: float,
    runs: int,
    min_time: float,
    batch: tuple[int, ...],
    concurrency: tuple[int, ...],
    new_tokens: int | None,
    limit: int | None,
    reference: Path | None,
    old_file: Path | None,
    compare_artifact: Path | None,
    json_file: Path | None,
    input_column: str,
    target_column: str,
    threads: int | None,
    trust_code: bool,
    **reports: Any,
) -> None:
    """Compare the accuracy and latency of each ARTIFACT on --data.

    A folder of artifacts stands for all of them. Latency is measured from text to text with greedy
    search. Each artifact runs in a separate process, and the processes take turns.

    Exits with 3 if no artifact meets the target: a p95 of at most --target-ms with 99 % confidence,
    which takes at least 90 runs.

    With --compare-artifact the exit code is 1 if an ARTIFACT is slower than OLD (Mann-Whitney test)
    or loses more answers than it wins (McNemar test), both at a significance level of 1 %. The
    target counts only if --target-ms is given.
    """
    from edge.bench.report.document import read_document
    from edge.cli.display.comparison import print_comparison
    from edge.cli.display.console import quiet_libraries
    from edge.runtime.rows import Columns

    outputs = report_outputs(reports, json_file)
    warn_of_few_runs(runs)
    quiet_libraries()
    old = read_document(old_file) if old_file is not None else None
    report = measure(
        outputs,
        artifacts=artifacts,
        data=data,
        target_ms=target_ms,
        runs=runs,
        min_time=min_time,
        batch=batch,
        concurrency=concurrency,
        new_tokens=new_tokens,
        threads=threads,
        reference=reference,
        compare_artifact=compare_artifact,
        limit=limit,
        columns=Columns(input=input_column, target=target_column),
        trust_code=trust_code,
    )
    if old is not None:
        with tables_beside(json_file):
            print_comparison(old, report.as_json())
    if compare_artifact is not None:
        check_regressions(report)
        source = click.get_current_context().get_parameter_source("target_ms")
        if source == click.core.ParameterSource.DEFAULT:
            return
    check_target(report)


def check_regressions(report: Report) -> None:
    """Do nothing if no artifact is worse than the old one.

    Raises:
        EdgeError: An artifact is slower or less accurate, or could not be compared.
    """
    from edge.runtime.errors import EdgeError

    failed = [str(one["sentence"]) for one in report.regressions if one["failed"]]
    if failed:
        raise EdgeError(f"--compare-artifact: {' '.join(failed)}")


def check_target(report: Report) -> None:
    """Do nothing if an artifact meets the target.

    Raises:
        EdgeError: Nothing could be measured.
        TargetMissedError: No artifact is known to meet the target.
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
        f"no artifact meets the target with 99 % confidence: the best p95 is {p95:.1f} ms"
        f" ({best.artifact}), {best.verdict_reason}"
    )
