"""The llama.cpp library, initialized once per process, with its log captured.

llama.cpp reports errors in a process-wide log; they become the text of exceptions here.
"""

from __future__ import annotations

import collections
import ctypes
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType

from edge.runtime.errors import ArtifactError, UnsupportedError
from edge.runtime.platform.cpu import cpu_info

_ERROR = 4  # enum ggml_log_level
_MAX_LINE = 300  # characters
# Instruction sets: llama.cpp's names → Linux's.
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
    "neon": "asimd",
    "fp16_va": "asimdhp",
    "dotprod": "asimddp",
    "matmul_int8": "i8mm",
    "sve": "sve",
    "sme": "sme",
}

_lock = threading.Lock()
_errors: collections.deque[str] = collections.deque(maxlen=20)
_callbacks: list[object] = []  # the log callback, which must outlive every call


def llama_library() -> ModuleType:
    """The low-level binding `llama_cpp.llama_cpp`, with backend and log initialized.

    Raises:
        ModuleNotFoundError: llama-cpp-python is not installed.
        UnsupportedError: It was built for another CPU.
    """
    from llama_cpp import llama_cpp

    with _lock:
        if not _callbacks:
            check_instructions(_instructions(getattr(llama_cpp, "_lib", None)), cpu_info()[1])
            callback = llama_cpp.llama_log_callback(_keep_errors)
            _callbacks.append(callback)
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            llama_cpp.llama_backend_init()
    module: ModuleType = llama_cpp
    return module


def check_instructions(used: Iterable[str], flags: Collection[str]) -> None:
    """Check that this CPU has the instruction sets that llama.cpp was built for.

    llama-cpp-python is built for the CPU it is installed on, and may later run elsewhere, for
    example in a container image. A missing instruction would kill the process.

    Args:
        used: Instruction sets that it was built for, under Linux's names.
        flags: Instruction sets of this CPU; empty if unknown.

    Raises:
        UnsupportedError: An instruction set is missing.
    """
    missing = [name for name in used if name not in flags]
    if flags and missing:
        raise UnsupportedError(
            f"llama-cpp-python was built for a CPU with {', '.join(missing)}, which this CPU lacks:"
            " build it here (pip install --force-reinstall --no-cache-dir --no-binary"
            " llama-cpp-python llama-cpp-python), or use format onnx or ctranslate2"
        )


def _instructions(library: object) -> list[str]:
    """Instruction sets that llama.cpp was built for, under Linux's names.

    The functions called here return constants. `llama_print_system_info` would run code built for
    those instruction sets.
    """
    names = {name: getattr(library, f"ggml_cpu_has_{name}", None) for name in _FLAGS}
    return [_FLAGS[name] for name, has in names.items() if has is not None and has()]


def clear_errors() -> None:
    """Clear the captured errors, before a call that may fail."""
    _errors.clear()


def last_error(default: str) -> str:
    """The error that llama.cpp logged since `clear_errors`, in one line, or `default`."""
    lines = [line for line in _errors if line]
    # The first line names the cause; later ones only say that the caller failed too.
    return lines[0][:_MAX_LINE] if lines else default


def _keep_errors(level: int, text: bytes, _: object) -> None:
    if level != _ERROR:
        return
    line = " ".join(text.decode("utf-8", "replace").split())
    # "function_name: what happened" → "what happened"
    head, colon, rest = line.partition(": ")
    _errors.append(rest if colon and " " not in head else line)


def load_model(path: Path) -> object:
    """Load a GGUF file, mapped into memory.

    Raises:
        ArtifactError: llama.cpp can't load it.
    """
    library = llama_library()
    params = library.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = library.LLAMA_LOAD_MODE_MMAP
    clear_errors()
    model = library.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        reason = last_error("no reason given")
        raise ArtifactError(f"{path}: llama.cpp can't load it ({reason}); export it again")
    return model
