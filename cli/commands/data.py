"""`edge data`: what is worth knowing and doing about rows before training."""

from __future__ import annotations

import click

from edge.cli.commands.data_lengths import lengths


@click.group(no_args_is_help=False)
def command() -> None:
    """Look at rows, split them, and make more of them, before training."""


command.add_command(lengths)
