"""`edge train`: rows of text → text in, a Hugging Face model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.train_options import layer_options, train_options

if TYPE_CHECKING:
    from edge.train.events import Event
    from edge.train.trainer import TrainResult


@click.command()
@click.argument("data", required=False, type=click.Path())
@layer_options
@train_options
def command(
    data: str | None, preset: tuple[str, ...], config: tuple[Path, ...], **options: Any
) -> None:
    """Train a T5-family model on DATA, a JSON-lines file or a folder with train and dev files.

    Defaults in brackets; some depend on whether the model is new or on the number of rows, and the
    table before training shows what was chosen. A preset overrides defaults, a --config file
    overrides presets, an option overrides both.
    """
    from edge.cli.console import quiet_libraries
    from edge.train.presets import build_config

    given = {name: value for name, value in {"data": data, **options}.items() if value is not None}
    run = build_config(given, names=preset, files=config)  # a wrong option is answered at once
    quiet_libraries()
    from edge.train.trainer import train

    with Display() as display:
        result = train(run, on_event=display.on_event)
    show_result(result)


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
            reason = event.reasons.get(name)
            shown = "–" if value is None else str(value)
            table.add_row(name, Text(f"{shown}, {reason}" if reason else shown))
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
