"""Lock files that exclude other processes and end with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.errors import UsageError
from edge.runtime.platform.os_errors import readable_os_errors


@contextlib.contextmanager
def lock_file(path: Path, output: Path) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor, open for reading and writing.

    Does not wait. The system releases the lock when the process ends, even if it is killed. The
    holder may delete the file: the next process then locks a new one. Source: flock(2).

    Args:
        path: The lock file; created with its folder if missing.
        output: What the lock protects, for the error message.

    Raises:
        UsageError: Another process holds the lock, or `path` is not a regular file.
        EdgeError: The file can't be created.
    """
    while True:
        with readable_os_errors(output, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                raise UsageError(f"{path} is a symbolic link; remove it and try again")
            if path.exists() and not path.is_file():
                raise UsageError(f"{path} is not a file; remove it and try again")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{output}: another process is writing to it; wait until it ends, or stop it"
                ) from None
            # The previous holder may have deleted the file after it was opened here.
            if _is_same_file(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds `lock_file(path, …)`; False if there is no such file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
