"""`edge train`: rows of text → text in, a Hugging Face model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.train_display import Display, show_result
from edge.cli.train_options import layer_options, train_options


@click.command()
@click.argument("data", required=False, type=click.Path())
@layer_options
@train_options
def command(
    data: str | None, preset: tuple[str, ...], config: tuple[Path, ...], **options: Any
) -> None:
    """Train a T5-family model on DATA, a JSON-lines file or a folder with train and dev files.

    Defaults in brackets; some depend on whether the model is new or on the number of rows, and the
    table before training shows what was chosen. A preset overrides defaults, a --config file
    overrides presets, an option overrides both.
    """
    from edge.cli.console import quiet_libraries
    from edge.train.presets import build_config

    given = {name: value for name, value in {"data": data, **options}.items() if value is not None}
    run = build_config(given, names=preset, files=config)  # a wrong option is answered at once
    quiet_libraries()
    from edge.train.trainer import train

    with Display() as display:
        result = train(run, on_event=display.on_event)
    show_result(result)
