"""llama.cpp's library, set up once per process: quiet, with its last errors at hand.

llama.cpp reports errors by writing to a process-wide log; what it wrote last becomes the text of
our exceptions.
"""

from __future__ import annotations

import collections
import ctypes
import threading
from types import ModuleType

_ERROR = 4  # enum ggml_log_level
_MAX_LINE = 300  # characters

_lock = threading.Lock()
_errors: collections.deque[str] = collections.deque(maxlen=20)
_ready: list[object] = []  # the module and the log callback, which must outlive every call


def llama_library() -> ModuleType:
    """The low-level binding `llama_cpp.llama_cpp`, with backend and log set up.

    Raises:
        ModuleNotFoundError: llama-cpp-python is not installed.
    """
    from llama_cpp import llama_cpp

    with _lock:
        if not _ready:
            callback = llama_cpp.llama_log_callback(_keep_errors)
            _ready.extend((llama_cpp, callback))
            llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
            llama_cpp.llama_backend_init()
    return llama_cpp


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
