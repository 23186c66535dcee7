"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "edge-t5",
    "onnxruntime",
    "ctranslate2",
    "llama-cpp-python",
    "torch",
    "tokenizers",
    "numpy",
)
# The instruction sets that decide how fast 8-bit products are.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
)


def machine_info() -> dict[str, Any]:
    """Processor, cores, instruction sets, system and library versions."""
    cpu, flags = _linux_cpu()
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "isa": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in _LIBRARIES if (v := _version(name))},
    }


def usable_cores() -> int:
    """Cores that this process may run on, which a container often limits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _linux_cpu() -> tuple[str, set[str]]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return "", set()
    name = ""
    flags: set[str] = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                name = name or value.strip()
            case "flags" | "Features":
                flags = flags or set(value.split())
    return name, flags


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
