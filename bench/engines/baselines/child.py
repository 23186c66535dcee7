"""What a measured process needs: its answers' stream, its end with the parent, its memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TextIO

_PR_SET_PDEATHSIG = 1


def redirect_stdout() -> TextIO:
    """Return a stream for the answers; whatever libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    return answers


def die_with_parent() -> None:
    """End this process when its parent ends (Linux): while paused, it could not notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def rss() -> int:
    """Resident memory of this process in bytes; where the system does not report it, the peak."""
    return _status("VmRSS") or peak_rss()


def peak_rss() -> int:
    """Peak resident memory of this process in bytes."""
    # getrusage would include what the parent had before this program started.
    if found := _status("VmHWM"):
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(field: str) -> int | None:
    """A size in Linux' /proc/self/status, in bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def describe_error(error: Exception) -> str:
    """An error's type and message in one line, at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
