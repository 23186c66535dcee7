"""Errors of the filesystem as sentences."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.runtime.errors import EdgeError


@contextlib.contextmanager
def readable_os_errors(destination: Path, *parts: Path) -> Iterator[None]:
    """Convert errors of the filesystem into an EdgeError that names the file.

    It names `destination`, unless the error itself names a file that lies elsewhere.

    Args:
        destination: The output that is written.
        parts: Files and folders that belong to it, such as the one that is renamed to it.

    Raises:
        EdgeError: No space, no permission, or a similar reason that the user can fix.
    """
    try:
        yield
    except Exception as error:
        reason = _READABLE.get(_error_number(error))
        if reason is None:
            raise
        other = _file_elsewhere(error, (destination, *parts))
        if other is not None:
            raise EdgeError(f"{other}: {getattr(error, 'strerror', '')}") from error
        raise EdgeError(f"{destination}: {reason}; nothing was written there") from error


def _file_elsewhere(error: Exception, places: Sequence[Path]) -> str | None:
    """The file that an error names, if it is neither in nor above one of the places."""
    if not isinstance(error, OSError):
        return None
    named = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes | os.PathLike)  # not a descriptor
    ]
    for name in named:
        path = Path(os.path.abspath(name))
        for place in (Path(os.path.abspath(place)) for place in places):
            if path.is_relative_to(place) or place.is_relative_to(path):
                return None
    return named[0] if named else None


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
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "a part of the path can't be created",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "a part of the path is not a folder",  # of mkdir, where a file has the name
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "too many symbolic links",
    errno.EIO: "the disk reports an error",
    errno.EPIPE: "the reader has closed the pipe",
}
