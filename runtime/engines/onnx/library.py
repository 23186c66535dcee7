"""ONNX Runtime as `ort`, imported only where the import does not kill the process."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from edge.runtime.errors import UnsupportedError
from edge.runtime.platform.cpu import hides_arm_cores

_MIN_VERSION, _MIN_VERSION_ON_ARM = (1, 22), (1, 23)
# Versions from here on end with a segmentation fault where no Arm core is described.
_NEEDS_CORES = (1, 28)


def check_version(version: str) -> None:
    """Reject versions of ONNX Runtime that can't run the graphs, or compute wrong results.

    1.21 and older have no 8-bit MatMulNBits, nor has 1.22 on Arm; 1.20 gave wrong log-probabilities
    in padded batches.

    Raises:
        UnsupportedError: The version is too old.
    """
    numbers = _numbers(version)
    on_arm = platform.machine() in ("aarch64", "arm64")
    needed = _MIN_VERSION_ON_ARM if on_arm else _MIN_VERSION
    if numbers and numbers < needed:
        minimum = ".".join(map(str, needed))
        raise UnsupportedError(
            f"ONNX Runtime {version} is too old: onnx artifacts need {minimum} or newer:"
            f" pip install -U 'onnxruntime>={minimum}'"
        )


def check_cores(version: str) -> None:
    """Reject versions that can't be imported on Arm if /proc/cpuinfo describes no Arm core.

    Raises:
        UnsupportedError: It is such a version.
    """
    numbers = _numbers(version)
    if numbers and numbers >= _NEEDS_CORES:
        raise UnsupportedError(
            f"ONNX Runtime {version} would crash here: /proc/cpuinfo describes no Arm core, as"
            " under an old QEMU. Use a newer QEMU (10.0 works), or"
            " pip install 'onnxruntime<1.28'"
        )


def _numbers(version: str) -> tuple[int, int] | None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _installed_version() -> str:
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:  # a build of another name, such as onnxruntime-gpu
        return ""


if hides_arm_cores():
    check_cores(_installed_version())

import onnxruntime as ort  # noqa: E402

__all__ = ["check_cores", "check_version", "ort"]
