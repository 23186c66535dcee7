"""The manifest of an artifact under construction."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.artifact import sha256_of
from edge.runtime.artifact.manifest import MANIFEST_NAME, FileInfo, Manifest


def file_info(path: Path) -> FileInfo:
    """Size and sha256 of a file, as the manifest lists them."""
    return FileInfo(sha256_of(path), path.stat().st_size)


def list_files(folder: Path) -> dict[str, FileInfo]:
    """All files of a folder but the manifest itself, by name."""
    return {
        path.name: file_info(path)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the artifact's folder."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
