"""`edge draft`: heads that draft answers as edits of the input."""

from __future__ import annotations

import click

from edge.cli.base import Group
from edge.cli.commands.draft.fit import fit


@click.group(cls=Group, no_args_is_help=False)
def command() -> None:
    """Fit heads that draft answers as edits of the input."""


command.add_command(fit)
