"""`edge runs`: training curves in the terminal."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.param_types import PATH

if TYPE_CHECKING:
    from edge.train.run_folder import RunView

_WATCH_SECONDS = 2.0


@click.command(cls=Command)
@click.argument("run", required=False, type=PATH)
@click.option("--watch", is_flag=True, help="Redraw every 2 seconds until the run ends.")
def command(run: Path | None, watch: bool) -> None:
    """Show the curves of RUN, the --output of edge train. Without RUN, list all runs here.

    The curves are read from training_log.jsonl, which is in OUTPUT.run during training and in
    OUTPUT afterwards.
    """
    from edge.runtime.errors import UsageError
    from edge.train.run_folder import find_log, read_run

    if run is None:
        if watch:
            raise UsageError("--watch needs RUN")
        _list()
        return
    while True:
        log = find_log(run)
        if log is None:
            if not run.exists():
                raise UsageError(f"{run}: there is no such folder")
            raise UsageError(f"{run}: no training log found")
        view = read_run(log)
        if watch:
            click.clear()
        _show(view)
        if not watch or view.status != "running":
            return
        time.sleep(_WATCH_SECONDS)


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from edge.cli.display.tables import print_table
    from edge.train.run_folder import LOG, find_runs, read_run

    folders = find_runs(Path())
    if not folders:
        click.echo("no runs in this folder")
        return
    table = Table(title="Runs", title_justify="left")
    for column in ("run", "status", "step", "done", "loss", "best eval_loss"):
        table.add_column(column)
    for folder in folders:
        view = read_run(folder / LOG)
        last = view.progress[-1] if view.progress else {}
        evals = view.curve("eval_loss")[1]
        table.add_row(
            Text(str(folder)),
            view.status,
            str(last.get("step", 0)),
            f"{last.get('fraction', 0.0):.0%}",
            f"{last['loss']:.3f}" if "loss" in last else "",
            f"{min(evals):.3f}" if evals else "",
        )
    print_table(table)


def _show(view: RunView) -> None:
    from edge.runtime.registry import missing_extra
    from edge.train.output.curves import PANELS, terminal_chart

    last = view.progress[-1] if view.progress else {}
    click.echo(f"{view.folder}: {view.status}, step {last.get('step', 0)}")
    if last:
        left = f", {last['seconds_left']:.0f} s left" if "seconds_left" in last else ""
        click.echo(
            f"{last.get('fraction', 0.0):.0%}, loss {last['loss']:.3f},"
            f" {last.get('tokens_per_second', 0.0):,.0f} tokens/s,"
            f" padding {last.get('padding_waste', 0.0):.1%}{left}"
        )
    width = min(100, shutil.get_terminal_size().columns)
    try:
        for title, names in PANELS:
            chart = terminal_chart(view, title, names, width)
            if chart:
                click.echo(chart)
    except ModuleNotFoundError as error:
        raise missing_extra("edge runs", "plotext", "curves") from error
    for entry in view.evals[-5:]:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in entry["details"].items())
        click.echo(f"step {entry['step']}: {figures}")
