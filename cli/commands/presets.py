"""`edge presets`: the presets of training options."""

from __future__ import annotations

import click

from edge.cli.base import Command


@click.command(cls=Command)
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the presets for edge train --preset, or show the fields of preset NAME.

    Combine an environment and an aim, as --preset cpu --preset quick. If both set a field, the
    later one wins. --config files override presets, and options override both.
    """
    from rich.table import Table

    from edge.cli.display.console import stdout_console
    from edge.train.presets import preset_named, presets

    if name is not None:
        preset = preset_named(name)
        table = Table(title=f"{preset.name}: {preset.about}", title_justify="left")
        table.add_column("field")
        table.add_column("value")
        for field, value in preset.fields.items():
            table.add_row(field, str(value))
    else:
        table = Table(title="Presets", title_justify="left")
        for column in ("name", "kind", "for", "fields"):
            table.add_column(column)
        for preset in presets().values():
            fields = ", ".join(f"{field} {value}" for field, value in preset.fields.items())
            table.add_row(preset.name, preset.kind, preset.about, fields)
    stdout_console().print(table, markup=False)
