"""The record of TorchScript files that this installation exported.

A TorchScript file is code, and loading it runs it. Export records the sha256 of each one that it
publishes, outside of the artifact, so that nothing inside a folder can claim to be trusted. The
record is a folder with one small file per sha256: `$XDG_STATE_HOME/edge/trusted`, by default
`~/.local/state/edge/trusted`. Source: the XDG Base Directory Specification.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from edge.runtime.artifact import sha256_of
from edge.runtime.errors import EdgeError
from edge.runtime.platform.atomic import new_file

# By format: the file that is code and runs when it is loaded.
CODE_FILES = {"torchscript": "model.ts"}
_MAX_RECORDS = 4096  # the oldest are forgotten


def trusted_folder() -> Path | None:
    """The folder of the record, or None if this user has no home folder."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "edge" / "trusted"
    try:
        return Path.home() / ".local" / "state" / "edge" / "trusted"
    except RuntimeError:
        return None


def record_trust(path: Path) -> bool:
    """Record a file that was just exported.

    Args:
        path: The TorchScript file.

    Returns:
        Whether it is recorded. If not, loading it needs `trust_code`.
    """
    folder = trusted_folder()
    if folder is None:
        return False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new_file(folder / sha256_of(path)) as staging:
            staging.write_text(f"{path.resolve()}\n", encoding="utf-8", errors="replace")
        _forget_oldest(folder)
    except (OSError, EdgeError):
        return False
    return is_recorded(path)


def is_recorded(path: Path) -> bool:
    """Whether this user's installation exported exactly this file.

    Records count only if no other user could have written them.

    Raises:
        OSError: The file can't be read.
    """
    folder = trusted_folder()
    if folder is None:
        return False
    try:
        opened = folder.stat()
        if not stat.S_ISDIR(opened.st_mode) or not _is_private(opened):
            return False
        record = (folder / sha256_of(path)).lstat()
        return stat.S_ISREG(record.st_mode) and _is_private(record)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False


def _is_private(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and only this user may write it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _forget_oldest(folder: Path) -> None:
    records = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(records) <= _MAX_RECORDS:
        return
    ages: list[tuple[float, Path]] = []
    for path in records:
        with contextlib.suppress(FileNotFoundError):  # another export forgot it
            ages.append((path.stat().st_mtime, path))
    for _, path in sorted(ages)[:-_MAX_RECORDS]:
        path.unlink(missing_ok=True)
