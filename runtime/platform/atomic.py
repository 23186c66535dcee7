"""Atomic writing of files and folders.

An output is built beside its destination, on the same filesystem, flushed to disk and renamed into
place. Readers see the old or the new output; after a crash or on a full disk the old one remains.

The writer holds a lock (flock) on what it builds. The next writer in the same folder deletes what
killed processes left unfinished: it has the name and no lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.errors import EdgeError
from edge.runtime.platform.destination import check_free, exists_already
from edge.runtime.platform.os_errors import readable_os_errors

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_MAX_NAME_BYTES = 255  # of a file name, on all common filesystems
_NAME_CHARACTERS = 50  # of the destination's name in that of a staging file or folder
_LEFT = re.compile(r"\.(?P<name>.*)\.edge-[a-z0-9_]{8}\.(?P<kind>partial|old)")


@contextlib.contextmanager
def new_folder(destination: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `destination`, on error it is deleted.

    With `force` an existing folder is replaced as soon as the new one is complete.

    Raises:
        OutputExistsError: `destination` exists and `force` is off, or it is not a folder.
        EdgeError: The disk is full, or `destination` can't be written.
    """
    destination = Path(destination)
    with readable_os_errors(destination, destination.parent):
        _sweep(destination.parent)  # may put back an old output
    check_free(destination, force=force)
    with _staging(destination, folder=True) as staging:
        yield staging
        os.chmod(staging, 0o777 & ~_umask())  # mkdtemp creates it with mode 0700
        _flush_tree(staging)
        _publish(staging, destination, force=force)


@contextlib.contextmanager
def new_file(destination: str | Path) -> Iterator[Path]:
    """Yield a path to write; on success it becomes `destination`, on error it is deleted.

    An existing file is replaced. What is not a regular file, such as /dev/stdout or a pipe, is
    written to once the content is complete.

    Raises:
        EdgeError: The disk is full, or `destination` can't be written.
    """
    destination = Path(destination)
    with readable_os_errors(destination):
        special = destination.exists() and not (destination.is_file() or destination.is_dir())
    if special:
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            staging = Path(folder) / "content"
            with readable_os_errors(Path(folder)):
                yield staging
            with (
                readable_os_errors(destination, staging),
                staging.open("rb") as source,
                destination.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
        return
    with _staging(destination, folder=False) as staging:
        yield staging
        os.chmod(staging, 0o666 & ~_umask())
        _flush(staging)
        os.replace(staging, destination)


@contextlib.contextmanager
def _staging(destination: Path, *, folder: bool) -> Iterator[Path]:
    """A new file or folder beside `destination`, locked; deleted at the end if it is still there.

    Errors that name it name `destination` instead.

    Raises:
        EdgeError: It can't be created or filled for a reason that the user can fix.
    """
    with readable_os_errors(destination, destination.parent):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination.parent)
        staging, lock = _create_locked(destination, folder=folder)
    try:
        with readable_os_errors(destination, staging):
            yield staging
    except EdgeError as error:
        error.args = (str(error).replace(str(staging), str(destination)),)
        raise
    finally:
        _delete(staging)
        os.close(lock)


def _create_locked(destination: Path, *, folder: bool) -> tuple[Path, int]:
    """Create a staging file or folder, and return it with the descriptor that locks it."""
    if len(os.fsencode(destination.name)) > _MAX_NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    # At most 4 bytes per character, with space for the rest of the name.
    prefix, suffix = f".{destination.name[:_NAME_CHARACTERS]}.edge-", ".partial"
    parent = destination.parent
    while True:
        if folder:
            staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
            lock = os.open(staging, os.O_RDONLY)
        else:
            lock, path = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
            staging = Path(path)
        with contextlib.suppress(OSError):  # some network filesystems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.exists():
            return staging, lock
        os.close(lock)  # swept by another process before it was locked


def _sweep(folder: Path) -> None:
    """Delete what killed processes of this user left in `folder`; put old outputs back."""
    for path in folder.glob(".*.edge-*"):
        found = _LEFT.fullmatch(path.name)
        if not found:
            continue
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found["kind"] == "partial":
                    _delete(path)
                elif path.is_dir() and len(found["name"]) < _NAME_CHARACTERS:  # not cut
                    _put_back(path, folder / found["name"])
            finally:
                os.close(lock)


def _put_back(old: Path, destination: Path) -> None:
    """Undo a replacement that a crash interrupted; delete `old` if it was complete."""
    if destination.exists():
        _delete(old)
    else:
        os.rename(old, destination)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    with contextlib.suppress(OSError):  # no Linux
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    # It can only be read by setting it, for all threads: files that they create are private then.
    mask = os.umask(0o077)
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


def _publish(staging: Path, destination: Path, *, force: bool) -> None:
    if not force or not destination.exists():
        try:
            os.rename(staging, destination)  # replaces an empty folder only
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # made by another process meanwhile
                raise exists_already(destination) from None
            raise
    elif _exchange(staging, destination):
        pass  # the old folder now has the staging name and is removed with it
    else:
        _replace(staging, destination)
    _flush(destination.parent)


def _replace(staging: Path, destination: Path) -> None:
    """Replace a folder where two can't be swapped; `_sweep` undoes it after a crash in between."""
    old = staging.with_suffix(".old")
    lock = os.open(destination, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network filesystems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(destination, old)
        try:
            os.rename(staging, destination)
        except OSError:
            os.rename(old, destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(lock)


def _exchange(first: Path, second: Path) -> bool:
    """Atomically swap two folders (renameat2, Linux); False if the system can't."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    status = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(status == 0)
