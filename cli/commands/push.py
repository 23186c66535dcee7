"""`edge push`: an artifact or a model folder uploaded to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.param_types import INPUT, PATH

if TYPE_CHECKING:
    from edge.train.output.model_card import Measurement


@click.command(cls=Command)
@click.argument("folder", metavar="ARTIFACT_OR_MODEL", type=PATH)
@click.argument("repository", metavar="OWNER/NAME")
@click.option(
    "--report",
    "report_file",
    type=INPUT,
    metavar="FILE",
    help="Report of edge bench --json, for the results on the model card.",
)
@click.option("--private", is_flag=True, help="Create a private repository.")
@click.option(
    "--revision",
    metavar="BRANCH",
    show_default="the default branch",
    help="Branch, made if there is none.",
)
@click.option("--message", metavar="TEXT", help="Message of the commit.")
def command(
    folder: Path,
    repository: str,
    report_file: Path | None,
    private: bool,
    revision: str | None,
    message: str | None,
) -> None:
    """Upload ARTIFACT_OR_MODEL to the Hugging Face hub with a model card, in one commit.

    The repository is created if there is none. Of an artifact, the files in its manifest are
    uploaded after a check of their hashes; of a model folder, configuration, tokenizer and
    safetensors.

    The token is read from HF_TOKEN, or from hf auth login.
    """
    from edge.cli.display.console import quiet_libraries, status

    quiet_libraries()
    measured = [] if report_file is None else _measurements(folder, report_file)
    from edge.export.push import push

    with status(f"uploading {folder}"):
        done = push(
            folder,
            repository,
            measurements=measured,
            private=private,
            revision=revision,
            message=message,
        )
    click.echo(f"{done.url}: {len(done.files)} files, commit {done.commit}")


def _measurements(folder: Path, report_file: Path) -> list[Measurement]:
    from edge.bench.report.document import read_document
    from edge.bench.report.measurements import measurements_of
    from edge.runtime.artifact.manifest import MANIFEST_NAME, read_manifest
    from edge.runtime.errors import UsageError

    if folder.is_dir() and not (folder / MANIFEST_NAME).is_file():
        raise UsageError(
            "--report needs an artifact; the card of a model has the evaluation of its training"
        )
    return measurements_of(read_document(report_file), read_manifest(folder), report_file)
