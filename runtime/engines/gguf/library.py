"""llama.cpp's library, set up once per process: quiet, with its last errors at hand.

llama.cpp reports errors by writing to a process-wide log; what it wrote last becomes the text of
our exceptions.
"""

from __future__ import annotations

import collections
import ctypes
import threading
from collections.abc import Collection, Iterable
from types import ModuleType

from edge.runtime.errors import UnsupportedError
from edge.runtime.platform.cpu import cpu_info

_ERROR = 4  # enum ggml_log_level
_MAX_LINE = 300  # characters
# llama.cpp's names of instruction sets → Linux's.
_FLAGS = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "avx": "avx",
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "f16c": "f16c",
    "fma": "fma",
    "bmi2": "bmi2",
    "avx512": "avx512f",
    "avx512_vbmi": "avx512vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
}

_lock = threading.Lock()
_errors: collections.deque[str] = collections.deque(maxlen=20)
_ready: list[object] = []  # the module and the log callback, which must outlive every call


def llama_library() -> ModuleType:
    """The low-level binding `llama_cpp.llama_cpp`, with backend and log set up.

    Raises:
        ModuleNotFoundError: llama-cpp-python is not installed.
        UnsupportedError: it was built for another processor.
    """
    from llama_cpp import llama_cpp

    with _lock:
        if not _ready:
            check_instructions(_instructions(getattr(llama_cpp, "_lib", None)), cpu_info()[1])
            callback = llama_cpp.llama_log_callback(_keep_errors)
            _ready.extend((llama_cpp, callback))
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            llama_cpp.llama_backend_init()
    return llama_cpp


def check_instructions(used: Iterable[str], flags: Collection[str]) -> None:
    """Refuse a library that would end the process by an instruction the processor has not.

    llama-cpp-python is built for the processor that it is installed on, and may then be carried
    elsewhere (a container image, say).

    Args:
        used: the instruction sets that it was built for, in Linux's words.
        flags: the processor's; empty where they are not known.

    Raises:
        UnsupportedError: one is missing.
    """
    missing = [name for name in used if name not in flags]
    if flags and missing:
        raise UnsupportedError(
            f"llama-cpp-python was built for a processor with {', '.join(missing)}, which this one"
            " has not: build it here (pip install --force-reinstall --no-cache-dir --no-binary"
            " llama-cpp-python llama-cpp-python), or use format onnx or ctranslate2"
        )


def _instructions(library: object) -> list[str]:
    """The instruction sets that llama.cpp was built for, in Linux's words.

    These functions return constants. `llama_print_system_info` says the same and more, but runs
    code built for those instructions on the way.
    """
    names = {name: getattr(library, f"ggml_cpu_has_{name}", None) for name in _FLAGS}
    return [_FLAGS[name] for name, has in names.items() if has is not None and has()]


def forget_errors() -> None:
    """Start a new account of errors, before a call that may fail."""
    _errors.clear()


def last_error(otherwise: str) -> str:
    """What llama.cpp logged as an error since `forget_errors`, in one line."""
    lines = [line for line in _errors if line]
    # Its first line names the cause, later ones only say that the caller failed too.
    return lines[0][:_MAX_LINE] if lines else otherwise


def _keep_errors(level: int, text: bytes, _: object) -> None:
    if level != _ERROR:
        return
    line = " ".join(text.decode("utf-8", "replace").split())
    # "function_name: what happened" → "what happened"
    head, colon, rest = line.partition(": ")
    _errors.append(rest if colon and " " not in head else line)
