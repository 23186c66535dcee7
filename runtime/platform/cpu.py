"""The CPU of this machine: usable cores and instruction sets."""

from __future__ import annotations

import functools
import os
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Number of logical cores that this process may use, by its affinity and container quota."""
    cores = len(cpu_affinity())
    quota = _quota()
    return cores if quota is None else max(1, min(cores, quota))


def service_threads() -> int:
    """Number of threads of an engine on a dedicated machine; more than four gain little."""
    return min(4, usable_cores())


def physical_cores() -> int:
    """Like `usable_cores`, but hardware threads of the same core count once."""
    siblings = {
        path.read_text(encoding="utf-8").strip() if path.is_file() else str(core)
        for core in cpu_affinity()
        for path in [_TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list"]
    }
    return max(1, min(usable_cores(), len(siblings)))


@functools.cache
def cpu_info() -> tuple[str, frozenset[str]]:
    """Name and instruction set flags of the CPU, as in /proc/cpuinfo; empty on other systems."""
    if not _CPU_INFO.is_file():
        return "", frozenset()
    name = ""
    flags: frozenset[str] = frozenset()
    for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                name = name or value.strip()
            case "flags" | "Features":
                flags = flags or frozenset(value.split())
    return name, flags


def cpu_affinity() -> list[int]:
    """Numbers of the logical cores that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quota() -> int | None:
    """CPU quota of the control group (version 2) in cores, rounded up, or None."""
    try:
        granted, period = _QUOTA.read_text(encoding="utf-8").split()
        return None if granted == "max" else -(-int(granted) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
