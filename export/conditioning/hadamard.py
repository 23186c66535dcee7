"""Randomized orthogonal transforms of any size, applied in O(n log n) where the size allows."""

from __future__ import annotations

import numpy as np


class Rotation:
    """A random orthogonal matrix Q of size n × n, the same for the same seed.

    Q = diag(signs) · (K ⊗ H): H is the Hadamard matrix of the largest power of two that divides n
    (Sylvester's construction), K a random orthogonal matrix of the odd factor that remains. Where n
    is odd there is no H, and Q is a random orthogonal matrix. Random signs make outliers spread
    evenly, whatever their pattern (QuaRot, https://arxiv.org/abs/2404.00456; QuIP#,
    https://arxiv.org/abs/2402.04396).
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.hadamard_size = size & -size
        odd = size // self.hadamard_size
        self._signs = rng.choice(np.array([-1.0, 1.0]), size)
        self._mixing = _random_orthogonal(odd, rng)

    def columns(self, matrix: np.ndarray) -> np.ndarray:
        """matrix @ Q for a float64 matrix [rows, n]."""
        rows = matrix.shape[0]
        values = (matrix * self._signs).reshape(rows, -1, self.hadamard_size)
        if self._mixing.size > 1:
            values = np.einsum("rmp,mk->rkp", values, self._mixing, optimize=True)
        return _walsh_hadamard(values).reshape(rows, self.size)

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        """Qᵀ @ matrix for a float64 matrix [n, columns]."""
        return self.columns(matrix.T).T


def _random_orthogonal(size: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform over the orthogonal matrices (QR of a Gaussian matrix with the signs settled)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def _walsh_hadamard(values: np.ndarray) -> np.ndarray:
    """values @ H / √p along the last axis, whose length p is a power of two."""
    *outer, size = values.shape
    half = 1
    while half < size:
        pairs = values.reshape(*outer, size // (2 * half), 2, half)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        values = np.stack((low + high, low - high), axis=-2).reshape(*outer, size)
        half *= 2
    scaled: np.ndarray = values / np.sqrt(size)
    return scaled
