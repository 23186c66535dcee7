"""`edge presets`: the presets of training options."""

from __future__ import annotations

import click

from edge.cli.base import Command

_WIDE = 100  # columns of a terminal that the table of presets fits as a whole


@click.command(cls=Command)
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the presets for edge train --preset, or show the fields of preset NAME.

    Combine an environment and an aim, as --preset cpu --preset quick. If both set a field, the
    later one wins. --config files override presets, and options override both.
    """
    from rich.table import Table
    from rich.text import Text

    from edge.cli.display.console import stdout_console
    from edge.cli.display.tables import print_table
    from edge.train.presets import preset_named, presets

    if name is not None:
        preset = preset_named(name)
        table = Table(title=f"{preset.name}: {preset.about}", title_justify="left")
        table.add_column("field")
        table.add_column("value")
        for field, value in preset.fields.items():
            table.add_row(Text(field), Text(str(value)))
    else:
        table = Table(title="Presets", title_justify="left")
        for column in ("name", "kind", "for", "fields"):
            table.add_column(column, overflow="fold")
        for preset in presets().values():
            fields = ", ".join(f"{field} {value}" for field, value in preset.fields.items())
            table.add_row(*map(Text, (preset.name, preset.kind, preset.about, fields)))
        if stdout_console().width >= _WIDE:
            stdout_console().print(table)
            return
    print_table(table)
