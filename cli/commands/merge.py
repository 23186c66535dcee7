"""`edge merge`: a base model and a LoRA adapter → one model folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("base", metavar="BASE")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder for the model."
)
@click.option("--force", is_flag=True, help="Replace an existing output once the new one is done.")
def command(base: str, adapter: Path, output: Path, force: bool) -> None:
    """Merge ADAPTER, a folder with a LoRA adapter in safetensors, into BASE, a hub id or a folder.

    For adapters made elsewhere; `edge train` merges its own. The output is ready for export.
    """
    import importlib.util

    from edge.cli.display.console import quiet_libraries, status
    from edge.runtime.registry import missing_extra

    for library in ("torch", "transformers", "peft"):
        if importlib.util.find_spec(library) is None:
            raise missing_extra("edge merge", library, "train")
    quiet_libraries()
    from edge.train.model.lora import merge

    with status("merging"):
        count = merge(base, adapter, output, force=force)
    click.echo(f"model: {output} ({base} with {count:,} weights of {adapter} merged into it)")
