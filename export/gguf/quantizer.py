"""llama.cpp's quantizer, with an importance matrix."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import LlamaFileType

from edge.runtime.engines.gguf.library import clear_errors, last_error, llama_library
from edge.runtime.errors import EdgeError


def quantize_file(
    source: Path, target: Path, file_type: LlamaFileType, importance: Mapping[str, np.ndarray]
) -> None:
    """Quantize a GGUF file.

    Rows that are not a multiple of a type's block size (256 or 32) get the nearest type that fits,
    at worst float16. Norms and position biases stay float32.

    Args:
        source: a file in float32.
        target: the file to write.
        file_type: llama.cpp's name of the mix of types.
        importance: GGUF name → mean square of each input of that matrix, float32 [in]: errors of
            inputs that are large count more. Empty: all count the same.

    Raises:
        EdgeError: the disk is full, or llama.cpp can't quantize the model.
    """
    library = llama_library()
    params = library.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    entries = _importance_entries(library, importance)
    if importance:
        params.imatrix = entries
    clear_errors()
    status = library.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if status == 0:
        return
    reason = last_error(f"status {status}")
    with contextlib.suppress(OSError):  # report the quantizer's error, not this one
        target.unlink()
    if shutil.disk_usage(target.parent).free < source.stat().st_size:
        raise EdgeError(f"{target.parent}: no space left on the disk for the quantized file")
    name = file_type.name.removeprefix("MOSTLY_").lower()
    raise EdgeError(f"{target}: llama.cpp could not quantize to {name} ({reason})")


def _importance_entries(library: Any, importance: Mapping[str, np.ndarray]) -> Any:
    """A C array of names and values, ended by an entry without a name.

    It points into `importance`, which must outlive it.
    """
    entries = (library.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries
