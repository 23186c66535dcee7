"""`edge data augment`: new rows with paraphrased or disfluent inputs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.options import (
    column_options,
    force_option,
    limit_option,
    output_option,
    threads_option,
)
from edge.cli.param_types import COUNT, INPUT, OUTPUT, SEED

if TYPE_CHECKING:
    from edge.train.augment.offline import AugmentationResult


@click.command(name="augment", cls=Command, short_help="Add paraphrased or disfluent inputs.")
@click.argument("data", type=INPUT)
@click.option(
    "--with",
    "model",
    metavar="MODEL",
    help="Paraphrase inputs with this model folder, hub id or artifact.",
)
@click.option("--noise", is_flag=True, help="Add fillers, repeats, restarts and corrections.")
@output_option("File for the rows.", metavar="FILE", type=OUTPUT)
@force_option
@click.option(
    "--per-row",
    type=click.IntRange(1, 64),
    default=2,
    metavar="N",
    help="New inputs of each kind to try per row.",
)
@click.option("--prefix", metavar="TEXT", show_default="the model's", help="Prompt of MODEL.")
@click.option("--temperature", type=float, default=1.0, help="Sampling temperature.")
@click.option(
    "--top-p", type=float, default=0.95, help="Sample from the best tokens of this probability."
)
@click.option("--max-new-tokens", type=COUNT, metavar="N", help="Maximum tokens of a paraphrase.")
@click.option("--min-rouge", type=float, default=0.3, help="Minimum ROUGE-L of new and old input.")
@click.option("--max-rouge", type=float, default=0.95, help="Maximum ROUGE-L of new and old input.")
@click.option(
    "--min-length", type=float, default=0.5, metavar="RATIO", help="Minimum words, new ÷ old input."
)
@click.option(
    "--max-length", type=float, default=2.0, metavar="RATIO", help="Maximum words, new ÷ old input."
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), default=16, metavar="N", help="Rows per batch."
)
@limit_option
@click.option("--only-new", is_flag=True, help="Write only the new rows.")
@click.option("--seed", type=SEED, default=0, help="Random seed.")
@column_options
@threads_option()
def augment(data: Path, model: str | None, output: Path, **options: Any) -> None:
    """Write the training rows of DATA, and new rows with other inputs and the same targets.

    The column "origin" says where a row is from. Inputs that are already in a split are skipped.

    Split first, then augment. Or split afterwards with edge data split, which keeps a row and its
    new rows together.
    """
    from edge.cli.display.console import quiet_libraries, status
    from edge.runtime.errors import UsageError
    from edge.runtime.platform.destination import check_destination
    from edge.runtime.rows import Columns
    from edge.train.augment.offline import Limits, augment
    from edge.train.augment.paraphrase import Sampling, open_paraphraser

    if model is None and not options["noise"]:
        raise UsageError("give --with MODEL, --noise, or both")
    bounds = ("min_rouge", "max_rouge", "min_length", "max_length")
    limits = Limits(**{name: options[name] for name in bounds})
    limits.check()
    check_destination(output, force=options["force"], file=True)
    quiet_libraries()
    with contextlib.ExitStack() as stack:
        paraphrase = None
        if model is not None:
            sampling = Sampling(
                options["per_row"],
                options["temperature"],
                options["top_p"],
                options["max_new_tokens"],
            )
            opened = open_paraphraser(
                model, sampling, prefix=options["prefix"], threads=options["threads"]
            )
            paraphrase = stack.enter_context(opened)
        progress = stack.enter_context(status("augmenting"))
        result = augment(
            data,
            output,
            columns=Columns(options["input_column"], options["target_column"]),
            paraphrase=paraphrase,
            limits=limits,
            on_done=lambda done, of: progress(f"augmenting: {done:,} of {of:,} rows"),
            **{
                name: options[name]
                for name in ("noise", "per_row", "batch_size", "seed", "limit", "only_new")
            },
        )
    _show(result, output)


def _show(result: AugmentationResult, output: Path) -> None:
    from edge.train.augment.offline import FILTERS

    kept = ", ".join(f"{count:,} by {origin}" for origin, count in result.kept.items())
    click.echo(f"{result.read:,} rows read; new: {kept or 'none'}")
    rejected = ", ".join(f"{name} {result.rejected[name]:,}" for name in FILTERS)
    click.echo(f"rejected: {rejected}")
    click.echo(f"{output}: {result.written:,} rows")
