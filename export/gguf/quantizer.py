"""llama.cpp's quantizer, with an importance matrix."""

from __future__ import annotations

import contextlib
import ctypes
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from edge.runtime.engines.gguf.library import clear_errors, last_error, llama_library
from edge.runtime.errors import EdgeError, ModelError

# Mixes whose embedding and most sensitive matrices get more bits. An answer reads few rows of the
# embedding, so that they cost no time there.
FOUR_BITS = (LlamaFileType.MOSTLY_Q4_K_M, LlamaFileType.MOSTLY_Q4_0)

_SMALLEST_BLOCK = 32
# A block's scale is a float16; with 8 bits the largest weight is 127 times it.
_LARGEST_WEIGHT = 127 * 65504.0


def require_range(weight: np.ndarray, name: str, model: str) -> None:
    """Check that the scales of blocks can hold a weight.

    Raises:
        ModelError: They can't; llama.cpp would say so in a line of its own.
    """
    largest = float(np.abs(weight).max(initial=0.0))
    if largest > _LARGEST_WEIGHT:
        raise ModelError(
            f"{model}: {name} holds {largest:.1e}, and the blocks of gguf end at"
            f" {_LARGEST_WEIGHT:.1e}. Use --quantize f32"
        )


def unfit_rows(widths: Sequence[int]) -> tuple[str, ...]:
    """A note on matrices whose rows, of these widths, no block divides; none without any."""
    unfit = [width for width in widths if width % _SMALLEST_BLOCK]
    if not unfit:
        return ()
    return (
        f"{len(unfit)} of {len(widths)} matrices are in 16 bits: their rows are no multiple of"
        f" {_SMALLEST_BLOCK}. --quantize f16 may be smaller",
    )


def quantize_file(
    source: Path,
    target: Path,
    file_type: LlamaFileType,
    importance: Mapping[str, np.ndarray],
    precise: Mapping[str, int],
    d_model: int,
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
        precise: GGUF name → row width of the matrices that mixes of 4 bits keep in 6 or 8.
        d_model: the width of the embedding.

    Raises:
        EdgeError: the disk is full, or llama.cpp can't quantize the model.
    """
    library = llama_library()
    params = library.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    entries = _importance_entries(library, importance)
    if importance:
        params.imatrix = entries
    if file_type in FOUR_BITS:
        embedding = _precise_type(d_model)
        if embedding is not None:
            params.token_embedding_type = int(embedding)
        params.tt_overrides = _overrides(library, precise)
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


def _precise_type(width: int) -> GGMLQuantizationType | None:
    """6 or 8 bits, whichever divides rows of that width into blocks; None: neither does."""
    for kind in (GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q8_0):
        if width % GGML_QUANT_SIZES[kind][0] == 0:
            return kind
    return None


def _overrides(library: Any, precise: Mapping[str, int]) -> Any:
    """A C array of name patterns and types, ended by an entry without a pattern."""
    kinds = {name: kind for name, width in precise.items() if (kind := _precise_type(width))}
    array = (library.llama_model_tensor_override * (len(kinds) + 1))()
    for entry, (name, kind) in zip(array, kinds.items(), strict=False):
        entry.pattern = re.escape(name).encode()
        entry.type = int(kind)
    return array


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
