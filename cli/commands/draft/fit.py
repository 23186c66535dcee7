"""`edge draft fit`: a draft head fitted to a model's own answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.options import force_option, input_column_option, limit_option
from edge.cli.param_types import INPUT, PATH

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
@force_option
def fit(model: Path, data: Path, limit: int | None, input_column: str, force: bool) -> None:
    """Fit a head that drafts the answers of the folder MODEL as edits of the input.

    The head learns from the model's own answers which tokens of an input are kept, and what is
    inserted. It is saved in the model's folder, whose other files stay as they are. edge export
    takes it along (onnx): drafts then start with the edited input.
    """
    from edge.cli.display.console import progress_bar, quiet_libraries
    from edge.export.draft.fit import fit_draft_head
    from edge.runtime.registry import require
    from edge.runtime.rows import Columns

    require("edge draft fit", "export", "torch", "transformers", "safetensors")
    quiet_libraries()
    with progress_bar() as progress:
        task = progress.add_task("answers", total=None)
        fitted = fit_draft_head(
            model,
            data,
            columns=Columns(input_column),
            limit=limit,
            force=force,
            on_progress=partial(_show, progress, task),
        )
    facts = fitted.head.record
    click.echo(
        f"{fitted.path}: fitted to {facts['rows']:,} rows, {facts['phrases']} phrases. On"
        f" {facts['held_out']} held-out rows {facts['keep_accuracy']:.1%} of the tokens are kept or"
        f" deleted as the model does, and {facts['whole_answers']:.1%} of the answers are drafted"
        " as a whole."
    )
    click.echo(
        f"\nNext: edge export {model} --format onnx --prompt-lookup-num-tokens 8 --output DIR"
    )


def _show(progress: Progress, task: TaskID, phase: str, done: int, of: int) -> None:
    progress.update(task, description=phase, completed=done, total=of)
