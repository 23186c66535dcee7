"""Rounding to low-bit grids, to the nearest and by GPTQ."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.quantization.grid import INTEGER_ROWS, Grid, dequantize
from edge.export.quantization.rounding import quantize

GRIDS = (INTEGER_ROWS, Grid(-8, 7, 32), Grid(-8, 7, 16), Grid(-127, 127, 64))


def correlated_inputs(width: int) -> np.ndarray:
    """Inputs [500, width] that vary together, as activations do."""
    rng = np.random.default_rng(0)
    few = rng.standard_normal((500, width // 4)) @ rng.standard_normal((width // 4, width))
    return (few + 0.3 * rng.standard_normal((500, width))).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("width", [64, 96, 50])
def test_products_change_less_with_gptq(grid: Grid, width: int) -> None:
    inputs = correlated_inputs(width)
    weight = np.random.default_rng(1).standard_normal((40, width)).astype(np.float32)
    moments = inputs.T @ inputs / len(inputs)

    def error(moments: np.ndarray | None) -> float:
        values, scales = quantize(weight, grid, moments)
        assert values.dtype == np.int8
        assert grid.lowest <= values.min()
        assert values.max() <= grid.highest
        found = dequantize(values, scales, width)
        return float(np.linalg.norm(inputs @ (found - weight).T))

    assert error(moments) < 0.75 * error(None)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_values_on_the_grid_stay(grid: Grid) -> None:
    rng = np.random.default_rng(2)
    integers = rng.integers(grid.lowest, grid.highest, (6, 64), endpoint=True)
    if grid.pair_limit is not None:
        integers[:, 1::2] = 0
    integers[:, :: grid.block or 64] = grid.lowest  # so that the range is that of the grid
    weight = (integers * 0.25).astype(np.float32)
    values, scales = quantize(weight, grid)
    np.testing.assert_array_equal(dequantize(values, scales, 64), weight)


@pytest.mark.parametrize("width", [64, 67])
def test_neighbors_keep_to_their_limit(width: int) -> None:
    inputs = correlated_inputs(width)
    weight = np.random.default_rng(4).standard_normal((50, width)).astype(np.float32)
    for moments in (None, inputs.T @ inputs / len(inputs)):
        values = quantize(weight, INTEGER_ROWS, moments)[0][:, 0].astype(np.int32)
        even = width // 2 * 2
        sums = np.abs(values[:, 0:even:2] + values[:, 1:even:2])
        assert sums.max() <= 128
        if moments is None:  # nothing but the limit takes range from the weights
            assert ((sums.max(axis=1) >= 126) | (np.abs(values).max(axis=1) == 127)).all()


def test_inputs_that_never_vary() -> None:
    """Dead inputs, and moments of rank one: still close to the nearest values."""
    weight = np.random.default_rng(3).standard_normal((8, 32)).astype(np.float32)
    for moments in (np.zeros((32, 32)), np.ones((32, 32)), np.diag([1.0] + [0.0] * 31)):
        values, scales = quantize(weight, INTEGER_ROWS, moments.astype(np.float32))
        found = dequantize(values, scales, 32)
        assert np.isfinite(found).all()
        assert np.abs(found - weight).max() < 0.5


def test_a_row_of_zeros() -> None:
    values, scales = quantize(np.zeros((3, 32), dtype=np.float32), Grid(-8, 7, 16), np.eye(32))
    assert not values.any()
    assert np.isfinite(scales).all()
