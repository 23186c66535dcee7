"""Display of `edge train`: events on stderr during training, metrics on stdout at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from edge.train.events import Event
    from edge.train.trainer import TrainResult


class TrainingDisplay:
    """Events of a run on stderr: stages, hyperparameters, and a progress bar with the loss."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._live = self._console.is_terminal  # otherwise lines for a log file
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task: Any = None
        self._logged = 0.0

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._progress.stop()

    def on_event(self, event: Event) -> None:
        """Show one event of `edge.train.trainer.train`."""
        if event.kind == "warning":
            self._print(f"warning: {event.message}")
        elif event.kind == "note":
            self._print(event.message)
        elif event.kind == "eval":
            figures = ", ".join(f"{name} {value:.4g}" for name, value in event.details.items())
            self._print(f"  step {event.step}: {figures}")
        elif event.kind == "resumed":
            self._print(f"resuming from the checkpoint of step {event.step}")
        elif event.kind == "start":
            self._show_hyperparameters(event)
        elif event.kind == "stage":
            self._begin(event.message)
        elif event.kind == "progress" and self._task is not None:
            self._advance(event)

    def _begin(self, what: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._logged = 0.0
        if what in ("training", "evaluating"):
            self._task = self._progress.add_task(what, total=1.0, figures="")
        if self._live or self._task is not None:
            self._print(what)

    def _advance(self, event: Event) -> None:
        figures = ""
        if event.loss is not None:
            figures = f"step {event.step}, loss {event.loss:.3f}"
            figures += f", learning rate {event.learning_rate or 0:.2g}"
            figures += f", {event.tokens_per_second or 0:,.0f} tokens/s"
            figures += f", padding {event.padding_waste or 0:.1%}"
            if event.seconds_left is not None:
                figures += f", {event.seconds_left:.0f} s left"
        self._progress.update(self._task, completed=event.fraction, figures=figures)
        # In a log file, one line per tenth of the run instead of the bar.
        if not self._live and figures and event.fraction >= self._logged + 0.1:
            self._logged = event.fraction
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
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_result(result: TrainResult, *, next_step: bool = True) -> None:
    """Print the metrics with their ratings, the folder of the model and the next step."""
    from rich.table import Table

    from edge.cli.display.console import stdout_console

    table = Table(title="Dev split", title_justify="left")
    for name in ("metric", "value", "rating"):
        table.add_column(name)
    metrics, bands = result.metrics, result.bands
    table.add_row("eval_loss", f"{metrics['eval_loss']:.3f}", bands["eval_loss"])
    table.add_row("ROUGE-L", f"{metrics['rouge_l']:.3f}", bands["rouge_l"])
    table.add_row("exact match", f"{metrics['exact_match']:.3f}", "")
    table.add_row("verbatim match", f"{metrics['verbatim_match']:.3f}", "")
    table.add_row("BLEU", f"{metrics['bleu']:.1f}", "")
    stdout_console().print(table)
    by_task = result.record.get("eval_by_task")
    if isinstance(by_task, dict) and by_task:
        stdout_console().print(_task_table(by_task))
    depths = result.record.get("depth")
    if isinstance(depths, list):
        stdout_console().print(_depth_table(depths))
    folder = result.folder
    click.echo(f"model: {folder} (record: {folder / 'training.json'}, {folder / 'training.md'})")
    if next_step:
        artifacts = folder.with_name(folder.name + "-artifacts")
        click.echo(f"next:  edge export {folder} --format all --output {artifacts}")


def _task_table(tasks: dict[str, dict[str, float]]) -> Table:
    from rich.table import Table

    table = Table(title="Dev split by task", title_justify="left")
    for name in ("task", "rows", "eval_loss", "ROUGE-L", "exact match", "BLEU"):
        table.add_column(name)
    for task, figures in tasks.items():
        table.add_row(task, f"{figures['rows']:.0f}", *_cells(figures))
    return table


def _cells(figures: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{figures['eval_loss']:.3f}",
        f"{figures['rouge_l']:.3f}",
        f"{figures['exact_match']:.3f}",
        f"{figures['bleu']:.1f}",
    )


def _depth_table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="Accuracy against decoder depth", title_justify="left")
    for name in ("model", "decoder layers", "eval_loss", "ROUGE-L", "exact match", "BLEU"):
        table.add_column(name)
    for row in sorted(rows, key=lambda row: -row["decoder_layers"]):
        table.add_row(
            row["model"],
            str(row["decoder_layers"]),
            *_cells(row),
        )
    return table
