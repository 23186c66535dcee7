"""Control groups of this process, of version 1 and 2, also inside a container.

Source: cgroups(7), the kernel's cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def group_folders(
    controller: str, *, proc: Path = PROC, cgroups: Path = CGROUPS
) -> Iterator[tuple[int, Path]]:
    """Folders of this process's group and its parents, each with its version; some may not exist.

    Args:
        controller: Controller of version 1, such as "cpu" or "memory".
        proc: Where procfs is mounted.
        cgroups: Where the control groups (version 1 or 2) are mounted.
    """
    v1_group, v2_group = _own_groups(controller, proc)
    for version, root, group in ((2, cgroups, v2_group), (1, cgroups / controller, v1_group)):
        # Inside a container the mounted root is its own group, and the path may name nothing.
        own = root / group.strip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            yield version, folder


def _own_groups(controller: str, proc: Path) -> tuple[str, str]:
    """Paths of this process's group of a controller in version 1 and of its group in version 2."""
    v1 = v2 = "/"
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return v1, v2
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if ".." in path:  # a group outside of this namespace
            continue
        if number == "0" and not controllers:
            v2 = path
        elif controller in controllers.split(","):
            v1 = path
    return v1, v2
