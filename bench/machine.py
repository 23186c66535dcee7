"""What a figure was measured on."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from edge.runtime.processor import cpu_info, usable_cores

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
    cpu, flags = cpu_info()
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "isa": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in _LIBRARIES if (v := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
