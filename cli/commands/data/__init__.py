"""`edge data`: lengths, splits and augmentation of training rows."""

from __future__ import annotations

import click

from edge.cli.base import Group
from edge.cli.commands.data.augment import augment
from edge.cli.commands.data.lengths import lengths
from edge.cli.commands.data.split import split


@click.group(cls=Group)
def command() -> None:
    """Inspect, split and augment training rows."""


for subcommand in (lengths, split, augment):
    command.add_command(subcommand)
