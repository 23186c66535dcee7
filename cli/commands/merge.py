"""`edge merge`: a base model and a LoRA adapter merged into one model folder."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.options import force_option, output_option
from edge.cli.param_types import PATH


@click.command(cls=Command)
@click.argument("base", metavar="BASE")
@click.argument("adapter", type=PATH)
@output_option("Folder for the merged model.", metavar="FOLDER")
@force_option
def command(base: str, adapter: Path, output: Path, force: bool) -> None:
    """Merge ADAPTER, a folder with a LoRA adapter in safetensors, into BASE, a hub id or a folder.

    The output is ready for edge export. Adapters of edge train are merged already.
    """
    from edge.cli.display.console import quiet_libraries, status
    from edge.runtime.errors import UsageError
    from edge.runtime.registry import require

    require("edge merge", "train", "torch", "transformers", "peft")
    if not adapter.is_dir():
        raise UsageError(f"{adapter}: there is no such folder with an adapter")
    quiet_libraries()
    from edge.train.model.lora import merge

    with status("merging"):
        count = merge(base, adapter, output, force=force)
    click.echo(f"model: {output} ({base} with {count:,} weights of {adapter} merged in)")
