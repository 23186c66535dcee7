"""Artifacts of the hub as local folders.

The hub's cache holds links. An artifact has none, and ONNX Runtime refuses weights behind a link,
so that the files are linked a second time, as regular files, beside the snapshots of their
repository. This takes no space on the disk.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from edge.runtime.errors import ArtifactError, OutputExistsError
from edge.runtime.hub.download import fetch, listed_files
from edge.runtime.hub.ids import Repository, find_repository
from edge.runtime.platform.atomic import new_folder

_FOLDER = "edge"  # beside "snapshots" and "blobs"


def artifact_folder(path: str | Path, revision: str | None = None) -> Path:
    """The local folder of an artifact: `path` itself, or a copy of the hub's repository.

    The hash of every file is checked when the copy is made.

    Args:
        path: A folder, OWNER/NAME or OWNER/NAME@REVISION. A folder of that name wins.
        revision: Branch, tag or commit of a repository.

    Raises:
        ArtifactError: The repository is missing or no artifact, or a file is altered.
        MissingExtraError: huggingface_hub is not installed.
        UsageError: A revision for a folder.
    """
    repository = find_repository(path, revision)
    if repository is None or "/" not in repository.name:
        return Path(path)
    what = "artifact"
    snapshot = fetch(repository, files=(MANIFEST_NAME,), kind=ArtifactError, what=what)
    if not (snapshot / MANIFEST_NAME).is_file():
        raise ArtifactError(
            f"{repository}: not an artifact (no {MANIFEST_NAME} in the repository). Make one of a"
            f" model: edge export {repository} --format onnx --output DIR"
        )
    manifest = read_manifest(snapshot)
    pinned = Repository(repository.name, snapshot.name)
    names = [MANIFEST_NAME, *(glob.escape(name) for name in manifest.files)]
    folder = snapshot.parents[1] / _FOLDER / snapshot.name / repository.name.rpartition("/")[2]
    if not folder.is_dir():
        _check_sizes(snapshot, manifest, repository)
        snapshot = fetch(pinned, files=names, kind=ArtifactError, what=what)
        _copy(snapshot, manifest, folder, str(repository))
    return folder


def _check_sizes(snapshot: Path, manifest: Manifest, repository: Repository) -> None:
    """Compare the sizes in the repository with the manifest's, before anything large is downloaded.

    Raises:
        ArtifactError: A file is missing or has another size.
    """
    sizes = listed_files(snapshot)
    for name, info in manifest.files.items():
        if name not in sizes:
            raise ArtifactError(f"{repository}: {name} is missing in the repository")
        if sizes[name] != info.size:
            raise ArtifactError(
                f"{repository}: {name} has {sizes[name]:,} bytes, the manifest says"
                f" {info.size:,}; upload the artifact again with edge push"
            )


def _copy(snapshot: Path, manifest: Manifest, folder: Path, repository: str) -> None:
    """Make a folder of regular files from a snapshot, and check their hashes.

    Raises:
        ArtifactError: A file is altered.
    """
    try:
        with new_folder(folder) as staging:
            for name in (MANIFEST_NAME, *manifest.files):
                source = (snapshot / name).resolve()
                try:
                    os.link(source, staging / name)
                except OSError:  # another filesystem, or one without links
                    shutil.copyfile(source, staging / name)
            try:
                Artifact.open(staging, verify=True)
            except ArtifactError as error:
                raise ArtifactError(str(error).replace(f"{staging}", repository)) from None
    except OutputExistsError:
        if not folder.is_dir():  # another process was faster otherwise
            raise
