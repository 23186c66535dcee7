"""Errors of the filesystem as sentences."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.errors import EdgeError


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
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "a part of the path can't be created",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "a part of the path is not a folder",  # of mkdir, where a file has the name
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "too many symbolic links",
    errno.EIO: "the disk reports an error",
    errno.EPIPE: "the reader has closed the pipe",
}
