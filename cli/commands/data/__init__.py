"""`edge data`: what is worth knowing and doing about rows before training."""

from __future__ import annotations

import click

from edge.cli.commands.data.augment import augment
from edge.cli.commands.data.lengths import lengths
from edge.cli.commands.data.split import split


@click.group(no_args_is_help=False)
def command() -> None:
    """Look at rows, split them, and make more of them, before training."""


for subcommand in (lengths, split, augment):
    command.add_command(subcommand)
