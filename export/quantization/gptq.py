"""GPTQ: rounding that compensates each weight's error in the weights not yet rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.export.quantization.grid import Grid, Quantized

if TYPE_CHECKING:
    import torch

# Added to the Hessian's diagonal, relative to its mean, and raised until it can be inverted.
_DAMPING = 0.01
_MOST_DAMPING = 100.0
_COLUMNS_AT_ONCE = 128


@dataclass(frozen=True)
class Levels:
    """What each weight may become: base + step × integer, lowest ≤ integer ≤ highest.

    Attributes:
        lowest: Smallest integer.
        highest: Largest integer.
        steps: float32 [out, in]. Where it is 0, the integer does not matter.
        bases: float32 [out, in]; None for zeros.
        pair_limit: Limit of |a + b| for each two neighbors in a row, at 2i and 2i + 1.
    """

    lowest: int
    highest: int
    steps: np.ndarray
    bases: np.ndarray | None = None
    pair_limit: int | None = None


def gptq(weight: np.ndarray, grid: Grid, moments: np.ndarray) -> Quantized:
    """Round a weight matrix so that its products with the calibrated inputs change least.

    Args:
        weight: Weights [out, in] float32.
        grid: The grid, with a scale per row or per block.
        moments: XᵀX / tokens of the inputs X [in, in] float32: the Hessian of the output error.

    Returns:
        Integers int8 [out, blocks, block] and scales float32 [out, blocks].
    """
    width = weight.shape[1]
    importance = np.maximum(np.diag(moments), 0.0)
    if not importance.max() > 0:
        scales = grid.scales(weight)
        return grid.round(grid.blocks(weight), scales).astype(np.int8), scales
    scales = grid.scales(weight, importance)
    steps = np.repeat(scales, grid.block or width, axis=1)[:, :width]
    levels = Levels(grid.lowest, grid.highest, steps, pair_limit=grid.pair_limit)
    integers = compensated(weight, levels, moments)
    return grid.blocks(integers).astype(np.int8), scales


def compensated(weight: np.ndarray, levels: Levels, moments: np.ndarray) -> np.ndarray:
    """The integers of a weight matrix, chosen so that each one makes up for the errors before it.

    Columns are rounded one after the other, those with the largest inputs first; the error of each
    is spread over the columns that remain, as the inverse Hessian says. The scales are fixed before
    (GPTQ, https://arxiv.org/abs/2210.17323, with `act_order` and static groups).

    Args:
        weight: Weights [out, in] float32.
        levels: What each weight may become.
        moments: XᵀX / tokens of the inputs X [in, in] float32: the Hessian of the output error.

    Returns:
        Integers as float32 [out, in].
    """
    import torch

    rows, width = weight.shape
    order = np.argsort(-np.diag(moments), kind="stable")
    steps = torch.from_numpy(levels.steps[:, order]).T
    steps = torch.where(steps == 0, 1.0, steps).contiguous()
    scaled = weight if levels.bases is None else weight - levels.bases
    remaining = torch.from_numpy(scaled[:, order]).T.contiguous()
    inverse = _inverse_factor(moments[np.ix_(order, order)])
    rounded = torch.empty((width, rows), dtype=torch.float32)  # a column is a row in memory
    place = np.argsort(order)  # of each column among the ordered ones
    for start in range(0, width, _COLUMNS_AT_ONCE):
        end = min(start + _COLUMNS_AT_ONCE, width)
        part = remaining[start:end]
        errors = torch.empty_like(part)
        for column in range(end - start):
            at = start + column
            values = (part[column] / steps[at]).round_().clamp_(levels.lowest, levels.highest)
            partner = order[at] ^ 1
            if levels.pair_limit is not None and partner < width and place[partner] < at:
                other = rounded[place[partner]]
                values.clamp_(
                    min=-levels.pair_limit - other.clamp(max=0),
                    max=levels.pair_limit - other.clamp(min=0),
                )
            rounded[at] = values
            error = (part[column] - values * steps[at]) / inverse[at, at]
            part[column + 1 :].addr_(inverse[at, at + 1 : end], error, alpha=-1)
            errors[column] = error
        remaining[end:] -= inverse[start:end, end:].T @ errors
    integers = np.empty((rows, width), dtype=np.float32)
    integers[:, order] = rounded.T.numpy()
    return integers


def _inverse_factor(hessian: np.ndarray) -> torch.Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, float32 [in, in]."""
    import torch

    matrix = torch.from_numpy(hessian).double()
    mean = float(matrix.diagonal().mean())
    damping = _DAMPING
    while damping <= _MOST_DAMPING:
        damped = matrix + damping * mean * torch.eye(len(matrix), dtype=torch.float64)
        # From the last row and column to the first: H = R Rᵀ with an upper R, whose inverse is the
        # factor. Half the work of the inverse and a second factorization.
        lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if not failed:
            identity = torch.eye(len(matrix), dtype=torch.float64)
            inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
            return inverse.flip(0, 1).float()
        damping *= 10
    # No input but one varies: nothing to compensate with.
    return torch.eye(len(matrix))
