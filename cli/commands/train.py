"""`edge train`: rows of text → text in, a Hugging Face model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import column_options

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.events import Event
    from edge.train.trainer import TrainResult


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", metavar="ID_OR_PATH", help="T5-family model: a hub id or a folder.")
@click.option(
    "--from-scratch",
    type=click.Choice(["tiny", "mini"]),
    help="A new model of this shape, with a vocabulary of its own.",
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder for the model."
)
@click.option("--force", is_flag=True, help="Replace an existing output once the new one is done.")
@column_options
@click.option("--task-column", default="task", show_default=True, help="Column of the task.")
@click.option("--prefix", help='Prompt before the input, such as "[{task}] {input}".')
@click.option("--dev-share", type=float, help="Without a dev split: share of rows for it, by hash.")
@click.option("--max-source-length", type=int, help="Tokens of an input.  [512; scratch 256]")
@click.option(
    "--max-target-length", type=int, default=128, show_default=True, help="Tokens of a target."
)
@click.option(
    "--long",
    type=click.Choice(["truncate", "drop", "chunk"]),
    default="truncate",
    show_default=True,
    help="Training rows over these lengths: cut, left out, or the input in several rows.",
)
@click.option("--epochs", type=float, help="Passes over the rows.  [3; scratch 8]")
@click.option("--max-minutes", type=float, help="Plan the training for this time instead.")
@click.option("--batch-size", type=int, help="Rows of a batch.  [16; scratch 32]")
@click.option(
    "--tokens-per-step", type=int, help="Tokens of a step, padding too, in place of --batch-size."
)
@click.option("--gradient-accumulation", type=int, default=1, show_default=True, help="Batches.")
@click.option("--learning-rate", type=float, help="Peak.  [3e-4; tiny 2e-3, mini 1e-3]")
@click.option("--warmup-share", type=float, default=0.05, show_default=True, help="Of the run.")
@click.option("--weight-decay", type=float, default=0.0, show_default=True, help="AdamW's.")
@click.option("--adam-beta1", type=float, default=0.9, show_default=True, help="AdamW's.")
@click.option("--adam-beta2", type=float, help="AdamW's.  [0.999; scratch 0.99]")
@click.option("--max-grad-norm", type=float, default=1.0, show_default=True, help="Clip to this.")
@click.option("--label-smoothing", type=float, default=0.0, show_default=True, help="0 to 1.")
@click.option("--dropout", type=float, help="[the model's own; scratch 0.05]")
@click.option("--ema-share", type=float, help="Last share whose weights are averaged.")
@click.option("--ema-decay", type=float, default=0.99, show_default=True, help="Per step.")
@click.option("--rename-share", type=float, help="Share of rows whose rare words are renamed.")
@click.option("--vocab-size", type=int, help="Pieces of a new vocabulary.  [tiny 2000, mini 4000]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the device is fast at it.",
)
@click.option("--threads", type=int, help="Threads on the CPU; default: torch's choice.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option("--eval-batch-size", type=int, default=64, show_default=True, help="Rows of a batch.")
@click.option("--max-eval-rows", type=int, help="Evaluate on the first rows of dev only.")
@click.option("--check/--no-check", default=True, help="Run the checks of edge check first.")
def command(check: bool, **options: Any) -> None:
    """Train a T5-family model on DATA, a JSON-lines file or a folder with train and dev files.

    Defaults in brackets depend on whether the model is new; the table before training shows all.
    """
    from edge.cli.console import quiet_libraries

    config = config_from(options)
    config.validate()  # before the heavy imports: a wrong option is answered at once
    quiet_libraries()
    from edge.train.preflight import require_ready
    from edge.train.trainer import train

    if check:
        require_ready(config)
    with Display() as display:
        result = train(config, on_event=display.on_event)
    show_result(result)


def config_from(options: dict[str, Any]) -> TrainConfig:
    """The run that the command line asks for."""
    from edge.train.config import TrainConfig

    return TrainConfig(**options)


class Display:
    """A run's events on stderr: stages, hyperparameters, a progress bar with loss and rate."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._live = self._console.is_terminal  # else: lines for a log, no bar
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task: Any = None
        self._told = 0.0

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._progress.stop()

    def on_event(self, event: Event) -> None:
        if event.kind == "warning":
            self._print(f"warning: {event.message}")
        elif event.kind == "note":
            self._print(event.message)
        elif event.kind == "start":
            self._show_hyperparameters(event)
        elif event.kind == "stage":
            self._begin(event.message)
        elif self._task is not None:
            self._advance(event)

    def _begin(self, what: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._told = 0.0
        if what in ("training", "evaluating"):
            self._task = self._progress.add_task(what, total=1.0, figures="")
        if self._live or self._task is not None:
            self._print(what)

    def _advance(self, event: Event) -> None:
        figures = ""
        if event.loss is not None:
            figures = f"step {event.step}, loss {event.loss:.3f}"
            figures += f", {event.rows_per_second or 0:.0f} rows/s"
            if event.seconds_left is not None:
                figures += f", {event.seconds_left:.0f} s left"
        self._progress.update(self._task, completed=event.fraction, figures=figures)
        # Where no bar can be drawn (a log file), a line for every tenth says the same.
        if not self._live and figures and event.fraction >= self._told + 0.1:
            self._told = event.fraction
            self._print(f"  {event.fraction:4.0%}  {figures}")

    def _show_hyperparameters(self, event: Event) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="Hyperparameters", title_justify="left")
        table.add_column("name")
        table.add_column("value", overflow="fold")
        for name, value in event.details.items():
            table.add_row(name, Text("–" if value is None else str(value)))
        self._progress.console.print(table)

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def show_result(result: TrainResult, *, next_step: bool = True) -> None:
    """The figures with their bands, where the model is, and what to do next, on stdout."""
    from rich.table import Table

    from edge.cli.console import stdout_console

    table = Table(title="Dev split", title_justify="left")
    for name in ("metric", "value", "fit"):
        table.add_column(name)
    metrics, bands = result.metrics, result.bands
    table.add_row("eval_loss", f"{metrics['eval_loss']:.3f}", bands["eval_loss"])
    table.add_row("ROUGE-L", f"{metrics['rouge_l']:.3f}", bands["rouge_l"])
    table.add_row("exact match", f"{metrics['exact_match']:.3f}", "")
    table.add_row("BLEU", f"{metrics['bleu']:.1f}", "")
    stdout_console().print(table)
    folder = result.folder
    click.echo(f"model: {folder} (record: {folder / 'training.json'}, {folder / 'training.md'})")
    if next_step:
        artifacts = folder.with_name(folder.name + "-artifacts")
        click.echo(f"next:  edge export {folder} --format all --output {artifacts}")
