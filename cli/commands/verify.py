"""`edge verify`: integrity of an artifact, and its parity with the source model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.options import threads_option, trust_option
from edge.cli.param_types import PATH
from edge.runtime.errors import one_line
from edge.runtime.printing import printable

if TYPE_CHECKING:
    from edge.runtime.artifact import Artifact


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--source",
    metavar="ID_OR_PATH",
    help="Also measure the parity with this model again.",
)
@threads_option()
@trust_option
def command(artifact: Path, source: str | None, threads: int | None, trust_code: bool) -> None:
    """Check the hash of every file of ARTIFACT, load it and generate an answer.

    It is loaded in a separate process with limits on memory and time, so that a malicious file
    becomes an error. TorchScript that you did not export on this machine is checked but not run.

    With --source, its greedy answers and log-probabilities are compared with the model again, with
    the tolerance of the manifest. If that allows more than edge export does, a line says so.

    A folder of artifacts stands for all of them; each is checked, whatever is wrong with another.
    """
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.errors import ArtifactError, EdgeError
    from edge.runtime.hub.artifacts import artifact_folder

    artifact = artifact_folder(artifact)
    folders = find_artifacts(artifact)
    if folders == [artifact]:
        _verify(artifact, source, threads, trust_code)
        return
    failed = []
    for folder in folders:
        click.echo(printable(folder.name))
        try:
            _verify(folder, source, threads, trust_code)
        except EdgeError as error:
            click.echo(f"failed     {printable(one_line(error))}")
            failed.append(folder.name)
    if failed:
        raise ArtifactError(
            f"{artifact}: {len(failed)} of {len(folders)} artifacts failed: {', '.join(failed)}"
        )


def _verify(artifact: Path, source: str | None, threads: int | None, trust_code: bool) -> None:
    """Check one artifact and print a line for its files, its engine and its parity."""
    from edge.runtime.artifact import Artifact
    from edge.runtime.errors import UsageError
    from edge.runtime.probe import probe

    opened = Artifact.open(artifact, verify=True, trust_code=trust_code)
    manifest = opened.manifest
    click.echo(f"files      {len(manifest.files)} files, {manifest.size:,} bytes: sha256 match")
    if code := _untrusted_code(opened):
        from edge.runtime.engines.torchscript.archive import check_archive

        check_archive(opened.path(code))
        if source is not None:
            raise UsageError(f"--source runs {code}, which is code; add --trust-code")
        click.echo(
            f"engine     not run: {code} is code that you did not export on this machine;"
            " its archive is intact (--trust-code runs it)"
        )
    else:
        found = probe(artifact, threads=threads, trust_code=trust_code)
        click.echo(f"engine     {manifest.format} loads and answers ({found.finish_reason})")
    if source is not None:
        _measure_parity(artifact, source, threads, trust_code)
        return
    recorded = manifest.parity
    line = (
        f"recorded at export: {recorded.get('greedy_identical')} of {recorded.get('inputs')} greedy"
        f" answers identical, mean log-prob error {recorded.get('mean_error')}"
        if recorded
        else "not recorded"
    )
    click.echo(f"parity     {printable(line)}")


def _untrusted_code(artifact: Artifact) -> str | None:
    """Name of the artifact's file that is code and not trusted, or None."""
    from edge.runtime.artifact.trust import CODE_FILES, is_recorded

    name = CODE_FILES.get(artifact.manifest.format)
    if name is None or artifact.trust_code or is_recorded(artifact.path(name)):
        return None
    return name


def _measure_parity(folder: Path, source: str, threads: int | None, trust_code: bool) -> None:
    from edge.cli.display.console import quiet_libraries
    from edge.export.source import SourceModel
    from edge.export.verify import remeasure_parity
    from edge.runtime.model import load

    quiet_libraries()
    with load(folder, threads=threads, trust_code=trust_code) as model:
        found = remeasure_parity(model, SourceModel.open(source))
    parity = found.parity
    click.echo(
        f"parity     {parity.greedy_identical} of {parity.inputs} greedy answers identical,"
        f" log-prob error mean {parity.mean_error:.2e} max {parity.max_error:.2e}"
    )
    if found.is_loose:
        click.echo(
            f"tolerance  {found.tolerance}: the manifest allows more than edge export does"
            f" ({found.default})"
        )
