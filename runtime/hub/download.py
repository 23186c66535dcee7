"""Download of repositories to the hub's local cache, and copies that are there already."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edge.runtime.errors import EdgeError, ModelError
from edge.runtime.hub.errors import hub_errors, quiet_hub
from edge.runtime.hub.ids import Repository, snapshot_of
from edge.runtime.hub.reach import why_unreachable
from edge.runtime.registry import missing_extra

# Patterns for names at the top of a repository; what is in its folders is never taken.
SETTINGS_FILES = ("*.json", "spiece.model", "merges.txt", "*.md")
MODEL_FILES = (*SETTINGS_FILES, "*.safetensors")

_log = logging.getLogger("edge.hub")


def fetch(
    repository: Repository,
    *,
    files: Sequence[str] = MODEL_FILES,
    kind: type[EdgeError] = ModelError,
    what: str = "model",
) -> Path:
    """The snapshot of a repository in the hub's cache, downloaded as far as it is not there.

    Offline (HF_HUB_OFFLINE), or if the hub can't be reached, the copy in the cache is taken. One of
    a commit is taken without asking the hub.

    Args:
        repository: What to download.
        files: Patterns of the files.
        kind: Class of the error.
        what: What the repository is, for the error.

    Returns:
        A folder with links to the cached files. Its name is the commit.

    Raises:
        EdgeError: An error of class `kind`: no such repository or revision, no access, or the hub
            can't be reached and there is no complete copy.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError as error:
        raise missing_extra(
            f"{repository}: no such folder; the hub", "huggingface_hub", "hub"
        ) from error
    offline = constants.HF_HUB_OFFLINE
    with quiet_hub(), hub_errors(kind, repository, what):
        if offline or repository.is_pinned:
            cached = _cached(repository, files)
            if cached is not None:
                return cached
        reason = (
            "HF_HUB_OFFLINE is set"
            if offline
            else why_unreachable(f"/api/models/{repository.name}")
        )
        if reason is None:
            return _download(repository, files)
        cached = None if offline else _cached(repository, files)
        if cached is None:
            raise kind(
                f"{repository}: no such folder, no complete copy in the cache"
                f" ({constants.HF_HUB_CACHE}), and {constants.ENDPOINT} can't be reached"
                f" ({reason}). Check the name and the network"
            )
    _log.warning(
        "%s can't be reached (%s): using the copy of %s in the cache, commit %s",
        constants.ENDPOINT,
        reason,
        repository,
        cached.name,
    )
    return cached


def _cached(repository: Repository, files: Sequence[str]) -> Path | None:
    """The snapshot in the cache, or None if it is not complete."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _download(repository, files, offline=True)
    except LocalEntryNotFoundError:
        return None


def _download(repository: Repository, files: Sequence[str], *, offline: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository.name,
            revision=repository.revision,
            allow_patterns=list(files),
            ignore_patterns=["*/*"],
            local_files_only=offline,
        )
    )


def listed_files(snapshot: Path) -> dict[str, int]:
    """Sizes in bytes of all files of a snapshot's commit, also of those that were not downloaded.

    Args:
        snapshot: A folder that `fetch` returned.
    """
    from huggingface_hub import get_cached_repo_tree

    found = snapshot_of(snapshot)
    assert found is not None, snapshot
    name, commit = found
    tree = get_cached_repo_tree(name, revision=commit, cache_dir=snapshot.parents[2])
    return {entry.path: entry.size for entry in tree}
