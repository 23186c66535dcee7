"""`edge draft fit`: a draft head fitted to a model's own answers."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.options import force_option, input_column_option, limit_option, threads_option
from edge.cli.param_types import INPUT, PATH


@click.command(name="fit", cls=Command, short_help="Fit a draft head to a model's answers.")
@click.argument("model", type=PATH)
@click.option(
    "--data",
    required=True,
    type=INPUT,
    metavar="DATA",
    help="Rows to answer: a file, or the train split of a folder.",
)
@limit_option
@input_column_option
@click.option(
    "--prefix",
    metavar="TEXT",
    show_default="that of training",
    help="Prompt around each input, as of edge export.",
)
@threads_option("torch's choice")
@force_option
def fit(
    model: Path,
    data: Path,
    limit: int | None,
    input_column: str,
    prefix: str | None,
    threads: int | None,
    force: bool,
) -> None:
    """Fit a head that drafts the answers of the folder MODEL as edits of the input.

    The head learns from the model's own answers which tokens of an input are kept, and what is
    inserted; the rows need no targets. It is saved in the model's folder, whose other files stay as
    they are. edge export takes it along (onnx): drafts then start with the edited input.
    """
    from edge.cli.display.console import quiet_libraries
    from edge.cli.display.draft import fit_draft
    from edge.runtime.registry import require
    from edge.runtime.rows import Columns

    require("edge draft fit", "export", "torch", "transformers", "safetensors")
    quiet_libraries()
    fit_draft(
        model,
        data,
        columns=Columns(input_column),
        prompt=prefix,
        limit=limit,
        threads=threads,
        force=force,
    )
