"""Artifacts of `edge serve` by name."""

from __future__ import annotations

import os
from pathlib import Path

_MAX_NAME = 64  # of an artifact, in URLs, metrics and the log


def name_artifacts(arguments: tuple[str, ...]) -> dict[str, Path]:
    """{"small": folder} from ("small=folder",). The default name is the folder's.

    A folder of artifacts becomes those inside it.

    Raises:
        UsageError: A name is empty, too long or given twice.
    """
    from edge.runtime.errors import UsageError

    folders: dict[str, Path] = {}
    for argument in [one for given in arguments for one in _expanded(given)]:
        name, equals, folder = argument.partition("=")
        if not equals or os.path.isdir(argument):  # unlike Path.is_dir, never raises
            name, folder = Path(argument).resolve().name, argument
        if not name or not folder:
            raise UsageError(f"an artifact must be FOLDER or NAME=folder, not {argument!r:.200}")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise UsageError(
                f"the name {name[:_MAX_NAME]!r} of an artifact must have at most {_MAX_NAME}"
                " printable characters; choose another with NAME=folder"
            )
        if name in folders:
            raise UsageError(f"two artifacts have the name {name!r}; rename one with NAME=folder")
        folders[name] = Path(folder)
    return folders


def _expanded(argument: str) -> list[str]:
    """The artifacts of a folder of artifacts, else the argument itself."""
    from edge.runtime.artifact import find_artifacts
    from edge.runtime.artifact.manifest import MANIFEST_NAME

    folder = Path(argument)
    if not os.path.isdir(argument) or not any(folder.glob(f"[!.]*/{MANIFEST_NAME}")):
        return [argument]
    return [str(found) for found in find_artifacts(folder)]
