"""Quantized weights in the layouts of ONNX Runtime's operators."""

from __future__ import annotations

import numpy as np

from edge.export.quantization.grid import INTEGER_ROWS, Grid, Quantized
from edge.export.quantization.rounding import quantize

# Weights per scale in a block-quantized row, largest first.
_BLOCKS = (128, 64, 32, 16)


def block_size(width: int) -> int:
    """The largest block size that divides `width`; else the smallest, and rows are padded."""
    return next((block for block in _BLOCKS if width % block == 0), _BLOCKS[-1])


def quantize_blocks(
    weight: np.ndarray, block: int, bits: int = 8, moments: np.ndarray | None = None
) -> Quantized:
    """Symmetric blocks of 8 or 4 bits in MatMulNBits' layout, around the middle value.

    Args:
        weight: float32 [rows, width].
        block: the weights per scale; rows are padded with zeros to a multiple of it.
        bits: 8 or 4.
        moments: second moments of the inputs [width, width]; with 4 bits, rounding errors are then
            compensated (GPTQ).

    Returns:
        Values [rows, blocks, block × bits / 8] uint8 (two 4-bit values in a byte, the first in the
        low half) and scales [rows, blocks] float32.
    """
    middle = 1 << (bits - 1)
    grid = Grid(-middle if bits == 4 else 1 - middle, middle - 1, block)
    integers, scales = quantize(weight, grid, moments if bits == 4 else None)
    values: np.ndarray = (integers.astype(np.int16) + middle).astype(np.uint8)
    if bits == 4:
        values = values[..., 0::2] | (values[..., 1::2] << 4)
    return np.ascontiguousarray(values), scales


def quantize_columns(weight: np.ndarray, moments: np.ndarray | None = None) -> Quantized:
    """Symmetric 8-bit columns for integer products.

    Args:
        weight: float32 [in, out].
        moments: second moments of the inputs [in, in]; rounding errors are then compensated.

    Returns:
        int8 values on the grid `INTEGER_ROWS` [in, out], and scales [out].
    """
    integers, scales = quantize(np.ascontiguousarray(weight.T), INTEGER_ROWS, moments)
    return np.ascontiguousarray(integers[:, 0].T), scales[:, 0]
