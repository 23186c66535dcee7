"""GPTQ: rounding that compensates each weight's error in the weights not yet rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge.export.quantization.grid import Grid, Quantized

if TYPE_CHECKING:
    import torch

# Added to the Hessian's diagonal, relative to its mean, and raised until it can be inverted.
_DAMPING = 0.01
_MOST_DAMPING = 100.0
_COLUMNS_AT_ONCE = 128


def gptq(weight: np.ndarray, grid: Grid, moments: np.ndarray) -> Quantized:
    """Round a weight matrix so that its products with the calibrated inputs change least.

    Columns are rounded one after the other, those with the largest inputs first; the error of each
    is spread over the columns that remain, as the inverse Hessian says. The scales are fixed before
    (GPTQ, https://arxiv.org/abs/2210.17323, with `act_order` and static groups).

    Args:
        weight: Weights [out, in] float32.
        grid: The grid, with a scale per row or per block.
        moments: XᵀX / tokens of the inputs X [in, in] float32: the Hessian of the output error.

    Returns:
        Integers int8 [out, blocks, block] and scales float32 [out, blocks].
    """
    import torch

    rows, width = weight.shape
    importance = np.maximum(np.diag(moments), 0.0)
    if not importance.max() > 0:
        scales = grid.scales(weight)
        return grid.round(grid.blocks(weight), scales).astype(np.int8), scales
    scales = grid.scales(weight, importance)
    order = np.argsort(-importance, kind="stable")
    block = grid.block or width
    column_scales = torch.from_numpy(np.repeat(scales, block, axis=1)[:, order])
    column_scales = torch.where(column_scales == 0, 1.0, column_scales).T.contiguous()
    inverse = _inverse_factor(moments[np.ix_(order, order)])
    remaining = torch.from_numpy(weight[:, order]).T.contiguous()  # a column is a row in memory
    rounded = torch.empty((width, rows), dtype=torch.float32)
    place = np.argsort(order)  # of each column among the ordered ones
    for start in range(0, width, _COLUMNS_AT_ONCE):
        end = min(start + _COLUMNS_AT_ONCE, width)
        part = remaining[start:end]
        errors = torch.empty_like(part)
        for column in range(end - start):
            at = start + column
            values = (part[column] / column_scales[at]).round_().clamp_(grid.lowest, grid.highest)
            partner = order[at] ^ 1
            if grid.pair_limit is not None and partner < width and place[partner] < at:
                other = rounded[place[partner]]
                values.clamp_(
                    min=-grid.pair_limit - other.clamp(max=0),
                    max=grid.pair_limit - other.clamp(min=0),
                )
            rounded[at] = values
            error = (part[column] - values * column_scales[at]) / inverse[at, at]
            part[column + 1 :] -= torch.outer(inverse[at, at + 1 : end], error)
            errors[column] = error
        remaining[end:] -= inverse[start:end, end:].T @ errors
    integers = np.empty((rows, width), dtype=np.float32)
    integers[:, order] = rounded.T.numpy()
    return grid.blocks(integers).astype(np.int8), scales


def _inverse_factor(hessian: np.ndarray) -> torch.Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, float32 [in, in]."""
    import torch

    matrix = torch.from_numpy(hessian).double()
    mean = float(matrix.diagonal().mean())
    damping = _DAMPING
    while damping <= _MOST_DAMPING:
        damped = matrix + damping * mean * torch.eye(len(matrix), dtype=torch.float64)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return upper.float()
        damping *= 10
    # No input but one varies: nothing to compensate with.
    return torch.eye(len(matrix))
