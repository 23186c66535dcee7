"""Content of a search's folder: what edge writes there, and what must not be deleted."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from edge.export.base import EXPORTERS
from edge.runtime.artifact.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from edge.runtime.platform.json_file import read_json

IDENTITY_NAME = "search.json"
ENTRIES_NAME, ARTIFACTS_NAME = "entries", "artifacts"


def foreign_path(folder: Path) -> Path | None:
    """The first path in the folder of a search that edge does not write, or None.

    `folder` itself is foreign if it is a symbolic link or not a folder. So are links and special
    files in it, and files of an artifact that its manifest does not list.

    Raises:
        OSError: a folder is not readable.
    """
    if not _is_folder(folder):
        return folder
    for path in _content(folder):
        if path.name == ENTRIES_NAME and _is_folder(path):
            found = next((p for p in _content(path) if not _is_entry(p)), None)
        elif path.name == ARTIFACTS_NAME and _is_folder(path):
            found = next((f for p in _content(path) if (f := _foreign_in_artifact(p))), None)
        else:
            found = None if path.name == IDENTITY_NAME and _is_file(path) else path
        if found:
            return found
    return None


def _content(folder: Path) -> Iterator[Path]:
    """The paths in a folder, without what a killed process left unfinished."""
    for path in sorted(folder.iterdir()):
        if not (path.name.startswith(".") and path.name.endswith(".partial")):
            yield path


def _is_entry(path: Path) -> bool:
    return path.suffix == ".json" and _is_file(path)


def _foreign_in_artifact(folder: Path) -> Path | None:
    if not _is_folder(folder) or folder.name.partition("-")[0] not in EXPORTERS.names():
        return folder
    try:
        known = {*read_json(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)["files"], MANIFEST_NAME}
    except (OSError, ValueError, TypeError, KeyError):
        known = {MANIFEST_NAME}
    for path in sorted(folder.rglob("*")):
        if _is_folder(path):
            continue
        if not _is_file(path) or path.relative_to(folder).as_posix() not in known:
            return path
    return None


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)
