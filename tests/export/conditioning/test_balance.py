"""Factors that move range from activations into weights."""

from __future__ import annotations

import numpy as np

from edge.export.conditioning.balance import balance_factors


def test_a_large_channel_is_scaled_down_and_its_weights_up() -> None:
    activation = np.ones(64, dtype=np.float32)
    activation[7] = 256.0
    weight = np.random.default_rng(0).uniform(0.5, 1.0, (8, 64)).astype(np.float32)
    factors = balance_factors(activation, weight)
    balanced = activation * factors
    assert balanced.max() / np.median(balanced) < 64  # it was 256
    assert factors[7] == factors.min()


def test_factors_are_powers_of_two() -> None:
    rng = np.random.default_rng(1)
    factors = balance_factors(rng.uniform(0.1, 50, 33), rng.standard_normal((5, 33)))
    assert (np.log2(factors) == np.rint(np.log2(factors))).all()
    assert (factors > 0).all()


def test_channels_that_are_never_used_stay_bounded() -> None:
    """A unit that no calibration row activates, and one whose weights are all zero."""
    activation = np.array([0.0, 1.0, 2.0, 1.0])
    weight = np.array([[1.0, 0.0, 1.0, 1.0]])
    factors = balance_factors(activation, weight)
    assert np.isfinite(factors).all()
    assert factors.max() / factors.min() < 2**20
    assert (balance_factors(np.zeros(3), np.ones((2, 3))) == 1).all()
    assert (balance_factors(np.ones(3), np.zeros((2, 3))) == 1).all()
