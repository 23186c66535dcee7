"""Randomized Hadamard matrices of any size."""

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
        signs = rng.choice(np.array([-1.0, 1.0]), size)
        mixing = _random_orthogonal(size // self.hadamard_size, rng)
        # One product with the whole matrix is faster than log n passes over what it rotates.
        self._matrix = signs[:, None] * np.kron(mixing, _hadamard(self.hadamard_size))

    def columns(self, matrix: np.ndarray) -> np.ndarray:
        """matrix @ Q for a float64 matrix [rows, n]."""
        rotated: np.ndarray = matrix @ self._matrix
        return rotated

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        """Qᵀ @ matrix for a float64 matrix [n, columns]."""
        rotated: np.ndarray = self._matrix.T @ matrix
        return rotated


def _random_orthogonal(size: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform over the orthogonal matrices (QR of a Gaussian matrix with the signs settled)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def _hadamard(size: int) -> np.ndarray:
    """The Hadamard matrix of a power of two, by Sylvester's construction, with rows of length 1."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: np.ndarray = matrix / np.sqrt(size)
    return scaled
