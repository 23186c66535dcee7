"""Randomized orthogonal transforms of any size."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.conditioning.hadamard import Rotation

SIZES = (1, 2, 8, 12, 33, 48, 64, 80, 97, 128, 768)


@pytest.mark.parametrize("size", SIZES)
def test_orthogonal_at_any_size(size: int) -> None:
    rotation = Rotation(size, np.random.default_rng(0))
    matrix = rotation.columns(np.eye(size))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    other = np.random.default_rng(1).standard_normal((size, 3))
    np.testing.assert_allclose(rotation.rows(other), matrix.T @ other, atol=1e-12)


@pytest.mark.parametrize("size", [64, 96, 768])
def test_an_outlier_is_spread_over_all_channels(size: int) -> None:
    """One channel of 100 becomes at most a few times the even share of its energy."""
    row = np.zeros((1, size))
    row[0, 5] = 100.0
    spread = np.abs(Rotation(size, np.random.default_rng(0)).columns(row))
    assert spread.max() < 2 * 100 / np.sqrt(size)


def test_the_seed_decides() -> None:
    row = np.arange(48.0)[None, :]
    one, same, other = (Rotation(48, np.random.default_rng(s)).columns(row) for s in (3, 3, 4))
    assert (one == same).all()
    assert not np.allclose(one, other)
