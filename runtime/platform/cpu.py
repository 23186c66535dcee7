"""The CPU of this machine: usable cores and instruction sets."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path

from edge.runtime.platform import arm
from edge.runtime.platform.cgroup import CGROUPS, PROC, group_folders

_CPU_INFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Number of logical cores that this process may use, by its affinity and container quota.

    The quota is the smallest of this process's control group and its parents, rounded up.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where the control groups (version 1 or 2) are mounted.
    """
    folders = group_folders("cpu", proc=proc, cgroups=cgroups)
    quotas = [quota for version, folder in folders if (quota := _quota(version, folder))]
    return min([len(cpu_affinity()), *quotas])


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
    """Name and instruction sets of the CPU, under the names of Linux's /proc/cpuinfo.

    On a Mac with Apple silicon they come from sysctl. Both are empty where they are unknown.
    """
    if sys.platform == "darwin":
        import subprocess  # takes 10 ms

        with contextlib.suppress(OSError, subprocess.SubprocessError):
            # Names that this version of macOS lacks are errors; the others are printed.
            command = ["/usr/sbin/sysctl", *arm.SYSCTL_NAMES]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
            return arm.from_sysctl(ended.stdout)
    if not _CPU_INFO.is_file() or hides_arm_cores():
        return "", frozenset()
    return parse_cpu_info(_CPU_INFO.read_text(encoding="utf-8", errors="replace"))


def hides_arm_cores() -> bool:
    """Whether this is Linux on Arm and /proc/cpuinfo describes no Arm core.

    An old QEMU that emulates Arm for single processes shows the x86 CPU that it runs on.
    """
    if not _CPU_INFO.is_file() or os.uname().machine != "aarch64":
        return False
    lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    return not any(line.startswith("CPU ") for line in lines)


def parse_cpu_info(text: str) -> tuple[str, frozenset[str]]:
    """Name and instruction sets from the text of /proc/cpuinfo.

    Arm cores are named by their part. Different cores of one chip are joined: "Cortex-A53 +
    Cortex-A72". All of them have the same instruction sets, since Linux lists only common ones.
    """
    name = implementer = ""
    flags: frozenset[str] = frozenset()
    cores: dict[str, None] = {}  # a set in order
    for line in text.splitlines():
        key, _, value = line.partition(":")
        value = value.strip()
        match key.strip():
            case "model name":
                name = name or value
            case "flags" | "Features":
                flags = flags or frozenset(value.split())
            case "CPU implementer":
                implementer = value
            case "CPU part":
                cores[arm.core_name(implementer, value)] = None
    return " + ".join(cores) or name, flags


def cpu_affinity() -> list[int]:
    """Numbers of the logical cores that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quota(version: int, folder: Path) -> int | None:
    """CPU quota of a control group in cores, at least 1; None without a quota.

    Source: the kernel's cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    try:
        if version == 2:
            granted, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            granted, period = ((folder / name).read_text(encoding="ascii") for name in names)
        cores = -(-int(granted) // int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max"
        return None
    return max(1, cores) if int(granted) >= 0 else None  # -1: no quota in version 1
