"""Prints docs/commands.md: what `--help` says, for every command. `make help-docs` writes it."""

from __future__ import annotations

import click

from edge.cli.main import COMMANDS, cli

_WIDTH = 100
_HEAD = """# Commands

What `--help` prints; written by `make help-docs`.
"""


def help_text(command: click.Command, name: str) -> str:
    """The help of one command, as on a terminal of a fixed width."""
    context = click.Context(
        command,
        info_name=name,
        max_content_width=_WIDTH,
        terminal_width=_WIDTH,
        help_option_names=cli.context_settings["help_option_names"],
    )
    lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _sections(command: click.Command, name: str, depth: int) -> list[str]:
    """A command's section, and after it those of its subcommands."""
    parts = [f"{'#' * depth} {name}\n\n```text\n{help_text(command, name)}\n```\n"]
    if isinstance(command, click.Group):
        for inner, subcommand in command.commands.items():
            parts += _sections(subcommand, f"{name} {inner}", depth + 1)
    return parts


def render() -> str:
    """The whole page."""
    parts = [_HEAD, f"```text\n{help_text(cli, 'edge')}\n```\n"]
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _sections(command, f"edge {name}", depth=2)
    return "\n".join(parts)


if __name__ == "__main__":
    click.echo(render(), nl=False)
