"""`edge check`: everything that can be known to go wrong with a training run, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from edge.cli.commands.train import command as train_command
from edge.cli.commands.train import config_from

if TYPE_CHECKING:
    from rich.table import Table

    from edge.train.preflight import Check

_MARKS = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}


_NOWHERE = "./edge-model"  # stands for the --output that a check need not have


def _options() -> Iterator[click.Parameter]:
    """Those of `edge train` but for --check."""
    for option in train_command.params:
        if option.name != "check":
            yield option


def _check(**options: Any) -> None:
    """Look at what `edge train` with the same options would do, without training.

    Environment, device, data, model, tokenizer, lengths, output cap, evaluation parity, memory and
    disk: ✓ fine, ! worth knowing, ✗ would fail or give a model that is no good. Exits with 2 where
    there is a ✗. `edge train` runs the same checks first.
    """
    from edge.cli.display.console import quiet_libraries, status, stdout_console
    from edge.runtime.errors import PreflightError

    config = config_from(**options, defaults={"output": _NOWHERE})
    quiet_libraries()
    from edge.train.preflight import preflight

    with status("checking"):
        checks = preflight(config, check_output=config.output != _NOWHERE)
    stdout_console().print(_table(checks))
    failed = dict.fromkeys(check.name for check in checks if check.status == "failed")
    if failed:
        raise PreflightError(f"{len(failed)} checks failed: {', '.join(failed)}")


command = click.Command("check", params=[*_options()], callback=_check, help=_check.__doc__)


def _table(checks: list[Check]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, style = _MARKS[check.status]
        table.add_row(Text(mark, style), Text(check.name), Text(check.detail))
    return table
