"""`edge check`: problems of a training run, found before it starts and reported together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from edge.cli.commands.train import ConfiguredCommand, config_from, draft_checks
from edge.cli.commands.train import command as train_command

if TYPE_CHECKING:
    from rich.table import Table

    from edge.train.preflight import Check

_MARKS = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}

_NO_OUTPUT = "./edge-model"  # placeholder: a check does not need --output


def _options() -> Iterator[click.Parameter]:
    """The options of `edge train` without --check."""
    for option in train_command.params:
        if option.name not in ("check", "verbose", "debug"):
            yield option


def _check(draft: bool, **options: Any) -> None:
    """Check what edge train would do with the same options, without training.

    Checks the environment, device, data, model, tokenizer, lengths, evaluation, memory and disk.
    ✓ is fine, ! is a warning, and ✗ would fail or give an unusable model. Exits with 2 after a ✗.

    edge train runs the same checks first.
    """
    from edge.cli.display.console import quiet_libraries, status, stdout_console
    from edge.runtime.errors import PreflightError

    config = config_from(**options, defaults={"output": _NO_OUTPUT})
    quiet_libraries()
    from edge.train.preflight import preflight

    with status("checking"):
        checks = preflight(
            config, check_output=config.output != _NO_OUTPUT, further=draft_checks(draft)
        )
    stdout_console().print(_table(checks))
    failed = dict.fromkeys(check.name for check in checks if check.status == "failed")
    if failed:
        count = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        raise PreflightError(f"{count} failed: {', '.join(failed)}")


command = ConfiguredCommand(
    "check", params=[*_options()], callback=_check, help=inspect.getdoc(_check)
)


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
