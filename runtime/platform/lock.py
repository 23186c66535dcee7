"""Lock files that exclude other processes and end with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lock_file(path: str | Path) -> Iterator[int]:
    """Hold an exclusive lock on a file, created if missing; yields its descriptor (read-write).

    Does not wait. The system releases the lock when the process ends, however it ends. The holder
    may delete the file: the next process then locks a new one. Source: flock(2).

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file can't be opened, or it is a symbolic link.
    """
    path = Path(path)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have deleted the file after it was opened here.
            if _is_same_file(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def is_locked(path: str | Path) -> bool:
    """Whether a process holds `lock_file(path)`; False if there is no such file."""
    try:
        with Path(path).open("rb") as file:
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
