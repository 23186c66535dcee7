"""`edge verify`: integrity of an artifact, and its parity with the source model."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.base import Command
from edge.cli.options import threads_option
from edge.cli.param_types import PATH


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--source",
    metavar="ID_OR_PATH",
    help="Also measure the parity with this model again.",
)
@threads_option()
def command(artifact: Path, source: str | None, threads: int | None) -> None:
    """Check the hash of every file of ARTIFACT, load it and generate an answer.

    With --source, its greedy answers and log-probabilities are compared with the model again, with
    the tolerance of the manifest.
    """
    from edge.runtime.model import load

    with load(artifact, threads=threads, verify=True) as model:
        manifest = model.artifact.manifest
        click.echo(f"files      {len(manifest.files)} files, {manifest.size:,} bytes: sha256 match")
        fields = dict.fromkeys(model.prompt.fields, "test")
        answer = model.generate("test", fields=fields, max_new_tokens=4)
        click.echo(f"engine     {manifest.format} loads and answers ({answer.finish_reason})")
        if source is None:
            recorded = manifest.parity
            click.echo(
                f"parity     recorded at export: {recorded.get('greedy_identical')} of"
                f" {recorded.get('inputs')} greedy answers identical,"
                f" mean log-prob error {recorded.get('mean_error')}"
                if recorded
                else "parity     not recorded"
            )
            return
        from edge.cli.display.console import quiet_libraries
        from edge.export.source import SourceModel
        from edge.export.verify import remeasure_parity

        quiet_libraries()
        parity = remeasure_parity(model, SourceModel.open(source))
        click.echo(
            f"parity     {parity.greedy_identical} of {parity.inputs} greedy answers identical,"
            f" log-prob error mean {parity.mean_error:.2e} max {parity.max_error:.2e}"
        )
