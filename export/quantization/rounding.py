"""Rounding of a weight matrix: to the nearest value, or by GPTQ where the inputs are known."""

from __future__ import annotations

import numpy as np

from edge.export.quantization.gptq import gptq
from edge.export.quantization.grid import Grid, Quantized

_ROWS_AT_ONCE = 4096  # an embedding's copies would take four times its memory


def quantize(weight: np.ndarray, grid: Grid, moments: np.ndarray | None = None) -> Quantized:
    """Round a weight matrix to a grid.

    Args:
        weight: Weights [out, in] float32.
        grid: The grid.
        moments: XᵀX / tokens of the inputs X [in, in]: rounding errors are then compensated by
            GPTQ. None rounds to the nearest.

    Returns:
        Integers int8 [out, blocks, block] and scales float32 [out, blocks]. If the block does not
        divide the width, the last block is padded with zeros.
    """
    if moments is not None:
        return gptq(weight, grid, moments)
    parts = [
        _nearest(weight[start : start + _ROWS_AT_ONCE], grid)
        for start in range(0, len(weight), _ROWS_AT_ONCE)
    ]
    integers, scales = zip(*parts, strict=True)
    return np.concatenate(integers), np.concatenate(scales)


def _nearest(weight: np.ndarray, grid: Grid) -> Quantized:
    scales = grid.scales(weight)
    return grid.round(grid.blocks(weight), scales).astype(np.int8), scales
