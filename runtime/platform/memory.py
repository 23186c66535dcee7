"""Memory that the process no longer uses, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_free_memory() -> None:
    """Return freed heap pages to the system; does nothing where the C library has no such call.

    Engines copy weights while they load and free what they copied from, but glibc keeps freed pages
    for later. Takes milliseconds. Source: malloc_trim(3).
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
