"""Atomic writing of files and folders.

An output is built beside its destination, on the same filesystem, flushed to disk and renamed into
place. Readers see the old or the new output; after a crash or on a full disk the old one remains.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.errors import EdgeError, OutputExistsError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def new_folder(destination: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `destination`, on error it is deleted.

    With `force` an existing folder is replaced as soon as the new one is complete.

    Raises:
        OutputExistsError: `destination` exists and `force` is off, or it is not a folder.
        EdgeError: The disk is full, or `destination` can't be written.
    """
    destination = Path(destination)
    check_destination(destination, force=force)
    with readable_os_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(
            tempfile.mkdtemp(
                prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
            )
        )
    try:
        with readable_os_errors(destination):
            yield staging
            os.chmod(staging, 0o777 & ~_umask())  # mkdtemp creates it with mode 0700
            _flush_tree(staging)
            _publish(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def new_file(destination: str | Path) -> Iterator[Path]:
    """Yield a path to write; on success it becomes `destination`, on error it is deleted.

    An existing file is replaced.

    Raises:
        EdgeError: The disk is full, or `destination` can't be written.
    """
    destination = Path(destination)
    with readable_os_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
        )
        os.close(handle)
    staging = Path(name)
    try:
        with readable_os_errors(destination):
            yield staging
            os.chmod(staging, 0o666 & ~_umask())
            _flush(staging)
            os.replace(staging, destination)
    finally:
        staging.unlink(missing_ok=True)


def check_destination(destination: str | Path, *, force: bool, file: bool = False) -> None:
    """Check before the work starts that an output may be written.

    Args:
        destination: The folder, or with `file` the file, that will be written. An empty folder
            may always be replaced.
        force: Whether an existing output may be replaced.
        file: Whether the output is a file.

    Raises:
        OutputExistsError: The output exists and `force` is off, or it is a folder where a file is
            needed or the other way round.
    """
    destination = Path(destination)
    is_folder = destination.is_dir()
    if is_folder if file else destination.exists() and not is_folder:
        found, needed = ("folder", "file") if file else ("file", "folder")
        raise OutputExistsError(f"{destination} is a {found}; --output must name a {needed}")
    is_empty = is_folder and not any(destination.iterdir())
    if destination.exists() and not is_empty and not force:
        raise OutputExistsError(
            f"{destination} already exists; choose another --output, or --force to replace it"
        )


@contextlib.contextmanager
def readable_os_errors(destination: Path) -> Iterator[None]:
    """Convert errors of the filesystem into an EdgeError that names `destination`.

    Raises:
        EdgeError: No space, no permission, or a similar reason that the user can fix.
    """
    try:
        yield
    except Exception as error:
        reason = _READABLE.get(_error_number(error))
        if reason is None:
            raise
        raise EdgeError(f"{destination}: {reason}; nothing was written there") from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # Exceptions of safetensors and tokenizers (Rust) are not OSErrors but contain this text.
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


_READABLE: dict[int | None, str] = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the limit for files (ulimit -f)",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EROFS: "the filesystem is read-only",
}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
    _flush(folder)


def _publish(staging: Path, destination: Path) -> None:
    if not destination.exists():
        os.rename(staging, destination)
    elif _exchange(staging, destination):
        pass  # the old folder now has the staging name and is removed with it
    else:
        old = staging.with_suffix(".old")
        os.rename(destination, old)
        try:
            os.rename(staging, destination)
        except OSError:
            os.rename(old, destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _flush(destination.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Atomically swap two folders (renameat2, Linux); False if the system can't."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    status = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(status == 0)
