"""Free memory within a container's limit, and freed memory returned to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.runtime.platform.memory import free_memory, give_back_free_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc_trim")
def test_freed_pages_leave_the_process() -> None:
    process = psutil.Process()
    # Too small for pages of their own; the last block holds the heap's end where it is.
    blocks = [np.ones(12_000) for _ in range(800)]
    full = process.memory_info().rss
    del blocks[:-1]
    give_back_free_memory()
    assert process.memory_info().rss < full - 40_000_000
    assert blocks[0].sum() == 12_000


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine with 1 GiB available, whose process is in no control group."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
    return folder


def write_group(folder: Path, limit: str, usage: int, stat: str, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(stat)


def test_without_a_limit_the_machine_decides(proc: Path, tmp_path: Path) -> None:
    cgroups = tmp_path / "cgroup"
    assert free_memory(proc=proc, cgroups=cgroups) == 1 << 30
    write_group(cgroups, "max", 5, "inactive_file 3\n")
    write_group(cgroups / "memory", str(2**63 - 4096), 5, "total_inactive_file 3\n", version=1)
    assert free_memory(proc=proc, cgroups=cgroups) == 1 << 30


def test_a_containers_limit_leaves_reclaimable_page_cache_free(proc: Path, tmp_path: Path) -> None:
    cgroups = tmp_path / "cgroup"
    write_group(cgroups, "10000", 4000, "anon 1000\ninactive_file 2500\n")
    assert free_memory(proc=proc, cgroups=cgroups) == 8500
    write_group(cgroups, "10000", 20000, "inactive_file 2500\n")
    assert free_memory(proc=proc, cgroups=cgroups) == 0


def test_the_limit_of_a_parent_group_counts(proc: Path, tmp_path: Path) -> None:
    cgroups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("0::/user.slice/job\n")
    write_group(cgroups / "user.slice" / "job", "max", 10, "")
    write_group(cgroups / "user.slice", "7000", 1000, "")
    write_group(tmp_path, "5", 0, "")  # above the mount: not ours
    assert free_memory(proc=proc, cgroups=cgroups) == 6000


@pytest.mark.parametrize("inside", [True, False])
def test_version_1_with_the_group_mounted_as_root_or_by_its_path(
    proc: Path, tmp_path: Path, inside: bool
) -> None:
    (proc / "self" / "cgroup").write_text("5:cpu,memory:/docker/abc\n4:pids:/x\n0::/\n")
    root = tmp_path / "cgroup" / "memory"
    folder = root if inside else root / "docker" / "abc"
    write_group(folder, "3000", 1000, "inactive_file 1\ntotal_inactive_file 200\n", version=1)
    assert free_memory(proc=proc, cgroups=tmp_path / "cgroup") == 2200
