"""GPTQ inside the blocks of a quantized GGUF file: new integers for the same scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from edge.export.quantization.gptq import Levels, compensated

# (GGUF name) → weights [out, in] and the moments of their inputs [in, in]; None: leave it.
Calibrated = Callable[[str], "tuple[np.ndarray, np.ndarray] | None"]


@dataclass(frozen=True)
class BlockLayout:
    """Where a block type keeps its integers: the low four bits of each weight, then the fifth.

    Attributes:
        bits: of an integer, 4 or 5.
        low: Offset of the low bits. Each byte has those of weights `span` / 2 apart.
        span: Weights that share bytes.
        high: Offset of the fifth bits, one per weight, the first in the lowest place.
    """

    bits: int
    low: int
    span: int
    high: int = 0

    def with_integers(self, blocks: np.ndarray, integers: np.ndarray) -> np.ndarray:
        """Copies of blocks whose integers are replaced; their scales stay.

        Args:
            blocks: uint8 [n, bytes of a block].
            integers: uint8 [n, weights of a block].
        """
        count, weights = integers.shape
        changed = blocks.copy()
        pairs = (integers & 0x0F).reshape(count, -1, 2, self.span // 2)
        packed = pairs[:, :, 0] | pairs[:, :, 1] << 4
        changed[:, self.low : self.low + weights // 2] = packed.reshape(count, -1)
        if self.bits > 4:
            high = np.packbits(integers >> 4, axis=1, bitorder="little")
            changed[:, self.high : self.high + weights // 8] = high
        return changed


_SHARE_SCALE = 32  # neighbors in a block with one scale and one base, in each of these types
# ggml-common.h: block_q4_0, block_q5_0, block_q4_K.
LAYOUTS = {
    GGMLQuantizationType.Q4_0: BlockLayout(bits=4, low=2, span=32),
    GGMLQuantizationType.Q5_0: BlockLayout(bits=5, low=6, span=32, high=2),
    GGMLQuantizationType.Q4_K: BlockLayout(bits=4, low=16, span=64),
}


def compensate_file(path: Path, calibrated: Calibrated) -> None:
    """Replace the integers of a file's 4- and 5-bit matrices by those of GPTQ; scales stay.

    llama.cpp rounds each weight to its nearest level. Here a weight also makes up for the errors
    of those before it, so that the products with the calibrated inputs change less.

    Args:
        path: The quantized file, which is changed in place.
        calibrated: Weights and moments of a matrix.
    """
    reader = GGUFReader(path, "r+")
    for tensor in reader.tensors:
        layout = LAYOUTS.get(tensor.tensor_type)
        found = calibrated(tensor.name) if layout is not None else None
        if layout is None or found is None or not np.diag(found[1]).max() > 0:
            continue
        weight, moments = found
        _, block_bytes = GGML_QUANT_SIZES[tensor.tensor_type]
        blocks = np.ascontiguousarray(tensor.data).reshape(-1, block_bytes)
        levels = block_levels(blocks, tensor.tensor_type, weight.shape)
        integers = compensated(weight, levels, moments).astype(np.uint8)
        changed = layout.with_integers(blocks, integers.reshape(len(blocks), -1))
        tensor.data[...] = changed.reshape(tensor.data.shape)
    reader.data.flush()


def block_levels(blocks: np.ndarray, kind: GGMLQuantizationType, shape: tuple[int, ...]) -> Levels:
    """What each weight of a matrix can be, by the scales in its blocks.

    Args:
        blocks: uint8 [n, bytes of a block].
        kind: Their type, one of `LAYOUTS`.
        shape: Of the matrix: out, in.
    """
    layout = LAYOUTS[kind]
    integers = np.zeros((len(blocks), GGML_QUANT_SIZES[kind][0]), dtype=np.uint8)
    integers[:, 1::_SHARE_SCALE] = 1
    values = dequantize(layout.with_integers(blocks, integers), kind).reshape(-1, _SHARE_SCALE)
    steps = np.repeat(values[:, 1] - values[:, 0], _SHARE_SCALE).reshape(shape)
    bases = np.repeat(values[:, 0], _SHARE_SCALE).reshape(shape)
    return Levels(0, (1 << layout.bits) - 1, steps, bases)
