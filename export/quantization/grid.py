"""Low-bit grids: integer values with one scale per row, or per block of a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Fractions of a block's range that are tried as its scale: clipping the largest weights a little
# can cost less than a coarse grid for all others. With 8 bits it never does.
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
_COARSE = 15


# Integers and scales of a weight, as `quantize` returns them.
Quantized = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Grid:
    """A symmetric grid: weight = scale × integer, lowest ≤ integer ≤ highest.

    Attributes:
        lowest: Smallest integer, such as -8.
        highest: Largest integer, such as 7.
        block: Weights of a row that share a scale; None for whole rows.
        pair_limit: Limit of |a + b| for each two neighbors in a row, at 2i and 2i + 1.
    """

    lowest: int
    highest: int
    block: int | None = None
    pair_limit: int | None = None

    def blocks(self, weight: np.ndarray) -> np.ndarray:
        """Rows split into blocks, the last one padded with zeros: [rows, blocks, block]."""
        rows, width = weight.shape
        block = self.block or width
        return np.pad(weight, ((0, 0), (0, -width % block))).reshape(rows, -1, block)

    def scales(self, weight: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """One scale per block: [rows, blocks] float32.

        Args:
            weight: Weights [rows, width] float32.
            importance: Mean square of each input [width]: scales then minimize the squared error of
                the products. None: the largest weight decides.
        """
        blocks = self.blocks(weight)
        scales = self._range_scales(blocks)
        if importance is None or self.highest > _COARSE:
            return scales
        weighting = self.blocks(importance[None, :].astype(np.float32))[0]
        best = scales
        least = np.full(scales.shape, np.inf, dtype=np.float32)
        signs = (1, -1) if self.lowest != -self.highest else (1,)
        for shrink in _SHRINKS:
            for sign in signs:
                tried = (scales * (shrink * sign)).astype(np.float32)
                error = self._error(blocks, tried, weighting)
                better = error < least
                least = np.where(better, error, least)
                best = np.where(better, tried, best)
        return best

    def round(self, blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """The nearest integers of the grid, as float32 [rows, blocks, block]."""
        safe = np.where(scales == 0, 1, scales)[..., None]
        rounded: np.ndarray = np.clip(np.rint(blocks / safe), self.lowest, self.highest)
        return rounded

    def _range_scales(self, blocks: np.ndarray) -> np.ndarray:
        if self.lowest == -self.highest:
            scales: np.ndarray = np.abs(blocks).max(axis=-1) / self.highest
            if self.pair_limit is not None:
                even = blocks.shape[-1] // 2 * 2
                sums = np.abs(blocks[..., 0:even:2] + blocks[..., 1:even:2])
                # Rounding adds up to 1 to a sum.
                sums_scales = sums.max(axis=-1, initial=0) / (self.pair_limit - 1)
                scales = np.maximum(scales, sums_scales)
            return scales.astype(np.float32)
        # The weight of largest magnitude gets the end that reaches further (llama.cpp's Q4_0).
        place = np.abs(blocks).argmax(axis=-1)[..., None]
        signed = np.take_along_axis(blocks, place, axis=-1)[..., 0] / self.lowest
        return signed.astype(np.float32)

    def _error(self, blocks: np.ndarray, scales: np.ndarray, weighting: np.ndarray) -> np.ndarray:
        difference = self.round(blocks, scales) * scales[..., None] - blocks
        total: np.ndarray = np.einsum("rbi,bi->rb", difference * difference, weighting)
        return total


# Rows for integer products. Without VNNI instructions, a processor multiplies 8-bit activations (0
# to 255) with weights and adds the products of two neighbors in 16 bits, which saturate at 32,767.
# 255 times a sum of 128 does not. Weights of 7 bits, the usual remedy, have up to twice the error.
INTEGER_ROWS = Grid(-127, 127, pair_limit=128)


def dequantize(values: np.ndarray, scales: np.ndarray, width: int) -> np.ndarray:
    """The weights that integers and scales stand for: [out, width] float32."""
    blocks = values.astype(np.float32) * scales[..., None]
    return np.ascontiguousarray(blocks.reshape(len(values), -1)[:, :width])
