"""Release of unused memory to the system."""

from __future__ import annotations

import ctypes
import sys


def release_free_memory() -> None:
    """Return freed heap pages to the system, on Linux with glibc; elsewhere does nothing.

    Engines copy weights while they load and free the originals, but glibc keeps freed pages. Takes
    milliseconds. Source: malloc_trim(3).
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
