"""The local folder of a model: the folder itself, or a snapshot of the hub's repository."""

from __future__ import annotations

import functools
from pathlib import Path

from edge.runtime.errors import ModelError
from edge.runtime.hub import (
    MODEL_FILES,
    SETTINGS_FILES,
    Repository,
    fetch,
    find_repository,
    listed_files,
    snapshot_of,
)


def local_folder(model: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model, downloaded if it is a hub id that is not in the hub's cache.

    A process asks the hub once for each id, so that all of its steps see the same commit.

    Args:
        model: A folder, or a hub id such as google/flan-t5-small, also with @REVISION.
        revision: Branch, tag or commit of a hub id.
        weights: Whether to download the weights, too.

    Raises:
        ModelError: No such folder, no such model, no access, or the hub can't be reached and the
            cache has no complete copy.
        UsageError: A revision for a folder.
    """
    repository = find_repository(model, revision)
    if repository is not None:
        return _snapshot(repository, weights)
    if not Path(model).is_dir():
        raise ModelError(
            f"{model}: no such model folder, and not a hub id like google/flan-t5-small"
        )
    return Path(model)


@functools.cache
def _snapshot(repository: Repository, weights: bool) -> Path:
    return fetch(repository, files=MODEL_FILES if weights else SETTINGS_FILES)


def require_listed_safetensors(snapshot: Path) -> None:
    """Refuse a commit of the hub without weights in safetensors; they need not be downloaded.

    Args:
        snapshot: The folder of the commit in the hub's cache.

    Raises:
        ModelError: The repository has none.
    """
    names = [name for name in listed_files(snapshot) if "/" not in name]
    if any(name.endswith(".safetensors") for name in names):
        return
    found = snapshot_of(snapshot)
    name = found[0] if found else snapshot
    if any(name.endswith((".bin", ".h5", ".msgpack")) for name in names):
        raise ModelError(
            f"{name}: no weights in safetensors on the hub. Other files can run code when they are"
            " loaded; convert them first"
        )
    raise ModelError(f"{name}: no weights on the hub; model.safetensors is missing")
