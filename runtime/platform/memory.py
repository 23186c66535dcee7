"""Free memory within a container's limit, and freed heap pages returned to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.platform.cgroup import CGROUPS, PROC, group_folders

_ASSUMED_FREE = 8 << 30  # bytes, where neither /proc nor psutil can say
# Limit, usage and the name of the reclaimable page cache in memory.stat, by cgroup version.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


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


def free_memory(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes that new processes can allocate without swapping, within the container's limit.

    The smaller of the machine's available memory and what this process's control group and its
    parents still allow. Page cache that the kernel can reclaim counts as free, as in Kubernetes'
    working set. Source: the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where the control groups (version 1 or 2) are mounted.
    """
    return min([_machine_memory(proc), *_group_memory(proc, cgroups)])


def _machine_memory(proc: Path) -> int:
    try:
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import psutil
    except ImportError:
        return _ASSUMED_FREE
    return int(psutil.virtual_memory().available)


def _group_memory(proc: Path, cgroups: Path) -> Iterator[int]:
    """Bytes that each control group of this process still allows."""
    for version, folder in group_folders("memory", proc=proc, cgroups=cgroups):
        free = _still_allowed(folder, _V2 if version == 2 else _V1)
        if free is not None:
            yield free


def _still_allowed(folder: Path, names: tuple[str, str, str]) -> int | None:
    """Bytes below the group's limit; None where it has no limit or does not exist."""
    limit_name, usage_name, cache_name = names
    try:
        limit = int((folder / limit_name).read_text(encoding="ascii"))
        usage = int((folder / usage_name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    try:
        stat = (folder / "memory.stat").read_text(encoding="ascii")
        usage -= int(dict(line.split() for line in stat.splitlines())[cache_name])
    except (OSError, ValueError, KeyError):
        pass
    return max(0, limit - max(0, usage))
