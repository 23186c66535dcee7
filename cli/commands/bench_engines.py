"""`edge bench-engines`: speed of engines on a model, or on a shape with random weights."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.display.bench import warn_of_few_runs
from edge.cli.options import FORMATS, json_option
from edge.cli.param_types import PATH, POSITIVE, IntegerList, completing


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="SHAPE_OR_MODEL...")
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    shell_complete=completing(FORMATS),
    show_default="all",
    help="Format to measure; repeatable.",
)
@click.option(
    "-q",
    "--quantize",
    "quantizations",
    multiple=True,
    metavar="NAME",
    show_default="8 bits; without --format also onnx int4",
    help="Quantization to measure, as for edge export; repeatable.",
)
@click.option(
    "--target-ms", type=POSITIVE, default=100.0, metavar="MS", help="Target of the p95 latency."
)
@click.option("--runs", type=int, default=100, metavar="N", help="Timed answers per engine.")
@click.option(
    "--input-tokens",
    type=click.IntRange(2, 512),
    default=32,
    metavar="N",
    help="Tokens of the input.",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(2, 512),
    default=16,
    metavar="N",
    help="Tokens of every answer.",
)
@click.option(
    "--max-threads",
    type=click.IntRange(1, 1024),
    default=2,
    metavar="N",
    help="Each engine gets its fastest number of threads up to N.",
)
@click.option("--baselines", is_flag=True, help="Also measure other engines in the same run.")
@click.option("--scaling", is_flag=True, help="Also measure longer inputs and answers.")
@click.option(
    "--batch",
    "batches",
    type=IntegerList(),
    default=(),
    metavar="N,...",
    help="Also measure answers per second in batches of N inputs, e.g. 4,16.",
)
@click.option(
    "--cache",
    type=PATH,
    metavar="FOLDER",
    show_default="~/.cache/edge/bench",
    help="Folder for random models and their artifacts.",
)
@json_option("the report")
def command(
    models: tuple[str, ...],
    formats: tuple[str, ...],
    quantizations: tuple[str, ...],
    target_ms: float,
    runs: int,
    input_tokens: int,
    new_tokens: int,
    max_threads: int,
    baselines: bool,
    scaling: bool,
    batches: tuple[int, ...],
    cache: Path | None,
    json_file: Path | None,
) -> None:
    """Compare the speed of engines on each SHAPE_OR_MODEL.

    A shape such as flan-t5-small needs no weights: they are random, and only the speed is measured.
    A model is a folder or a hub id. The engines take turns, each in a separate process.

    Exits with 3 if none of edge's engines meets the target: a p95 of at most --target-ms with 99 %
    confidence, which takes at least 90 runs.
    """
    from edge.runtime.registry import require

    require("edge bench-engines", "export", "torch", "transformers", "safetensors")
    warn_of_few_runs(runs)
    from edge.bench.engines.cache import choose_targets
    from edge.bench.engines.results import Settings
    from edge.cli.display.console import quiet_libraries
    from edge.cli.display.engines import bench_engines

    quiet_libraries()
    settings = Settings(
        input_tokens=input_tokens,
        new_tokens=new_tokens,
        threads=max_threads,
        runs=runs,
        target_ms=target_ms,
        batches=tuple(dict.fromkeys(batches)),
    )
    bench_engines(
        models,
        choose_targets(formats, quantizations),
        settings,
        cache=cache,
        baselines=baselines,
        scaling=scaling,
        json_file=json_file,
    )
