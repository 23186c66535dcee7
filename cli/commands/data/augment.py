"""`edge data augment`: paraphrased and spoken inputs beside the rows there are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import column_options, threads_option

if TYPE_CHECKING:
    from edge.train.augment.offline import AugmentationResult


@click.command(name="augment", context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "model",
    metavar="MODEL",
    help="Model folder, hub id or artifact that paraphrases.",
)
@click.option("--noise", is_flag=True, help="Add fillers, repeats, restarts, corrections.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--per-row", type=click.IntRange(1, 64), default=2, help="Tries of each kind a row.")
@click.option("--prefix", help="Prompt of MODEL, such as 'paraphrase: '; default: its own.")
@click.option("--temperature", type=float, default=1.0, help="Of sampling.")
@click.option("--top-p", type=float, default=0.95, help="Sample among tokens of this mass.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest paraphrase.")
@click.option("--min-rouge", type=float, default=0.3, help="Below this ROUGE-L it is too far.")
@click.option("--max-rouge", type=float, default=0.95, help="From this on it is too similar.")
@click.option("--min-length", type=float, default=0.5, help="Words, to those of the input.")
@click.option("--max-length", type=float, default=2.0, help="Words, to those of the input.")
@click.option("--batch-size", type=click.IntRange(1, 1024), default=16, help="Rows at once.")
@click.option("--limit", type=click.IntRange(1), help="Use the first rows only.")
@click.option("--only-new", is_flag=True, help="Write the new rows without the old ones.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of everything random.")
@column_options
@threads_option
def augment(data: Path, model: str | None, output: Path, **options: Any) -> None:
    """Write the training rows of DATA and new ones with other inputs and the same targets.

    Each row says in `origin` where it is from. Inputs that any split has already are left out.
    Split first, then augment; or split afterwards with edge data split, which keeps a row and what
    was made of it together.
    """
    from edge.cli.display.console import quiet_libraries, status
    from edge.runtime.errors import UsageError
    from edge.runtime.rows import Columns
    from edge.train.augment.offline import Limits, augment, check_output
    from edge.train.augment.paraphrase import Sampling, open_paraphraser

    if model is None and not options["noise"]:
        raise UsageError("give --with MODEL, --noise, or both")
    bounds = ("min_rouge", "max_rouge", "min_length", "max_length")
    limits = Limits(**{name: options[name] for name in bounds})
    limits.check()
    check_output(output, force=options["force"])
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
        tell = stack.enter_context(status("augmenting"))
        result = augment(
            data,
            output,
            columns=Columns(options["input_column"], options["target_column"]),
            paraphrase=paraphrase,
            limits=limits,
            on_done=lambda done, of: tell(f"augmenting: {done:,} of {of:,} rows"),
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
    click.echo(f"left out: {rejected}")
    click.echo(f"{output}: {result.written:,} rows")
