"""llama.cpp's library, set up once per process: quiet, with its last errors at hand.

llama.cpp reports errors by writing to a process-wide log; what it wrote last becomes the text of
our exceptions.
"""

from __future__ import annotations

import collections
import ctypes
import re
import threading
from types import ModuleType

from edge.runtime.errors import UnsupportedError
from edge.runtime.processor import cpu_info

_ERROR = 4  # enum ggml_log_level
_MAX_LINE = 300  # characters
# llama.cpp's names of instruction sets → Linux's.
_FLAGS = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
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
            check_instructions(llama_cpp.llama_print_system_info().decode(), cpu_info()[1])
            callback = llama_cpp.llama_log_callback(_keep_errors)
            _ready.extend((llama_cpp, callback))
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            llama_cpp.llama_backend_init()
    return llama_cpp


def check_instructions(built: str, flags: frozenset[str]) -> None:
    """Refuse a library that would end the process by an instruction the processor has not.

    llama-cpp-python is built for the processor that it is installed on, and may then be carried
    elsewhere (a container image, say).

    Args:
        built: what `llama_print_system_info` says, such as "CPU : AVX2 = 1 | AVX512 = 1 | ".
        flags: the processor's, as Linux names them; empty where they are not known.

    Raises:
        UnsupportedError: an instruction set is missing.
    """
    used = re.findall(r"\b(\w+) = 1\b", built)
    missing = [name for name in used if name in _FLAGS and _FLAGS[name] not in flags]
    if flags and missing:
        raise UnsupportedError(
            f"llama-cpp-python was built for a processor with {', '.join(missing)}, which this one"
            " has not: build it here (pip install --force-reinstall --no-cache-dir --no-binary"
            " llama-cpp-python llama-cpp-python), or use format onnx or ctranslate2"
        )


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
