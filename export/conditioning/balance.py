"""Balancing: range moved from the activations between two matrices into the second one."""

from __future__ import annotations

import numpy as np

# Channels whose activations or weights are this far below the largest count as this large: a
# channel that calibration never saw must not get a factor without bounds.
_FLOOR = 1e-4
_LARGEST_EXPONENT = 20


def balance_factors(activation: np.ndarray, weight: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Factor s per channel: activations are multiplied by s, the reading weights by 1 / s.

    As SmoothQuant (https://arxiv.org/abs/2211.10438, equation 4), brought to a geometric mean of 1
    and rounded to powers of two, which makes the rewrite exact in float32. With alpha 0.5, every
    channel's largest activation comes to equal its largest weight.

    Args:
        activation: Largest magnitude of each channel in calibration [n].
        weight: Weights that read the channels [out, n].
        alpha: How much of the range the weights take over, 0 to 1.

    Returns:
        Positive factors [n].
    """
    reading = np.abs(weight).max(axis=0).astype(np.float64)
    seen = activation.astype(np.float64)
    if not (seen.max(initial=0.0) > 0 and reading.max(initial=0.0) > 0):
        return np.ones_like(seen)
    seen = np.maximum(seen, _FLOOR * seen.max())
    reading = np.maximum(reading, _FLOOR * reading.max())
    exponents = (1 - alpha) * np.log2(reading) - alpha * np.log2(seen)
    exponents = np.rint(exponents - exponents.mean())
    factors: np.ndarray = np.exp2(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return factors
