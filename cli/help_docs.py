"""Generator of docs/commands.md, the `--help` of every command. Run by `make help-docs`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import click

from edge.cli.main import COMMANDS, cli

_WIDTH = 78  # what click uses on a terminal of 80 columns
_HEADER = """# Commands

The output of `--help` for every command. Written by `make help-docs`.
"""


def command_names() -> Iterator[tuple[str, ...]]:
    """Words of every command in the order of the page: (), ("quickstart",), ("data", "split")…"""
    yield ()
    context = click.Context(cli)
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            for subcommand in command.commands:
                yield name, subcommand


def help_text(name: tuple[str, ...]) -> str:
    """The `--help` of one command on a terminal of 80 columns."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        cli.main([*name, "--help"], "edge", standalone_mode=False, terminal_width=_WIDTH)
    return output.getvalue()


def render() -> str:
    """The whole page."""
    sections = [_HEADER]
    for name in command_names():
        heading = f"{'#' * (1 + len(name))} {' '.join(['edge', *name])}\n\n" if name else ""
        lines = (line.rstrip() for line in help_text(name).rstrip().splitlines())
        sections.append(f"{heading}```text\n{chr(10).join(lines)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    click.echo(render(), nl=False)
