"""Description of the machine and the software that a benchmark ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.runtime.platform.cpu import cpu_affinity, cpu_info, usable_cores

_LIBRARIES = (
    "edge-t5",
    "onnxruntime",
    "ctranslate2",
    "llama-cpp-python",
    "torch",
    "tokenizers",
    "numpy",
)
# Instruction sets that decide the speed of matrix products: x86's, then Arm's.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)
_CPUS = Path("/sys/devices/system/cpu")
_REPOSITORY = Path(__file__).resolve().parents[2]


def machine_info() -> dict[str, Any]:
    """Processor, cores, instruction sets, load, system, library versions and git revision.

    `affinity` lists the logical cores that this process may use, and `pinned` is True if these are
    not all. `governor` and `load_average` (of the last minute) are None if the system does not
    report them, `revision` is None outside a git checkout.
    """
    cpu, flags = cpu_info()
    cores = cpu_affinity()
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "affinity": cores,
        "pinned": len(cores) < (os.cpu_count() or 1),
        "governor": _governor(cores),
        "load_average": _load_average(),
        "isa": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in _LIBRARIES if (v := _version(name))},
        "revision": _revision(),
    }


def _governor(cores: Sequence[int]) -> str | None:
    """The frequency governor of these cores, such as "performance"."""
    found = set()
    for core in cores:
        with contextlib.suppress(OSError):
            path = _CPUS / f"cpu{core}" / "cpufreq" / "scaling_governor"
            found.add(path.read_text(encoding="utf-8").strip())
    return ", ".join(sorted(found)) or None


def _load_average() -> float | None:
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


def _revision() -> str | None:
    """The commit of this source tree, with "-dirty" if files differ from it."""
    if not (_REPOSITORY / ".git").exists():
        return None
    command = ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return ended.stdout.strip() or None
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
