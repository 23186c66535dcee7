"""Ids of the Hugging Face hub, and folders of its local cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge.runtime.errors import UsageError

_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_ID = re.compile(rf"{_NAME}(/{_NAME})?", re.ASCII)
_REVISION = re.compile(r"[\w./+-]{1,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Folders of the hub's cache: models--OWNER--NAME/snapshots/COMMIT.
_SNAPSHOT = re.compile(r"models--(.+)/snapshots/([0-9a-f]{40})/?$")


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at a branch, tag or commit; None is its default branch."""

    name: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def is_hub_id(text: str) -> bool:
    """Whether `text` can be a hub id: NAME or OWNER/NAME."""
    return _ID.fullmatch(text) is not None


def find_repository(text: str | Path, revision: str | None = None) -> Repository | None:
    """The repository that `text` names, or None if it is a local path or no id.

    A path that exists is local, and so is one in a folder that exists.

    Args:
        text: NAME, OWNER/NAME or OWNER/NAME@REVISION.
        revision: Branch, tag or commit.

    Raises:
        UsageError: A malformed revision, two revisions, or one for a local folder.
    """
    name, at, own = str(text).partition("@")
    if not is_hub_id(name) or Path(text).exists() or _in_local_folder(name):
        if revision is not None:
            raise UsageError(f"{text}: not a hub id like google/flan-t5-small; remove --revision")
        return None
    if at and revision is not None:
        raise UsageError(f"{text}: give @{own} or --revision {revision}, not both")
    wanted = own if at else revision
    if wanted is not None and not _REVISION.fullmatch(wanted):
        raise UsageError(f"{text}: {wanted!r:.80} can't be a branch, tag or commit")
    return Repository(name, wanted)


def _in_local_folder(name: str) -> bool:
    return "/" in name and Path(name).parent.is_dir()


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """Hub id and commit of a snapshot folder in the hub's cache; None for any other folder."""
    found = _SNAPSHOT.search(folder.absolute().as_posix())
    return (found[1].replace("--", "/"), found[2]) if found else None
