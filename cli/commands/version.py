"""`edge version`: the version, as `edge --version` prints it."""

from __future__ import annotations

import click

from edge.cli.base import Command


@click.command(cls=Command)
def command() -> None:
    """Show the version."""
    from edge.runtime.version import edge_version

    click.echo(f"edge {edge_version()}")
