"""Matrix products and embeddings of each precision, as ONNX nodes over the source's weights."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from edge.export.onnx.graph import MICROSOFT, Graph
from edge.export.source import SourceModel

# Weights per scale in a block-quantised row, largest first.
_BLOCKS = (128, 64, 32, 16)
_COLUMN_LIMIT = 63


class Precision(abc.ABC):
    """How weights are stored and multiplied.

    `names` are state-dict names of weights [out, in] with one input; several are stacked along
    their outputs, so that one product serves them all.
    """

    def __init__(self, source: SourceModel) -> None:
        self._source = source

    @abc.abstractmethod
    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        """x [..., in] times the stacked weights' transpose: [..., out]."""

    @abc.abstractmethod
    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        """Rows of a weight [vocabulary, width] by id: [..., width], float32."""

    def _stacked(self, names: Sequence[str]) -> np.ndarray:
        return np.concatenate([self._source.tensor(name) for name in names])


class Float32(Precision):
    """Weights as they are."""

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        if names == ["lm_head.weight"] and self._source.architecture.tied_head:
            # Stored once: the head is the embedding, multiplied untransposed.
            return graph.op("MatMul", x, self._transposed_embedding(graph))
        weight = graph.weight("+".join(names), lambda: self._stacked(names).T)
        return graph.op("MatMul", x, weight)

    def _transposed_embedding(self, graph: Graph) -> str:
        return graph.op("Transpose", self._embedding_weight(graph, "shared.weight"), perm=[1, 0])

    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        return graph.op("Gather", self._embedding_weight(graph, name), ids)

    def _embedding_weight(self, graph: Graph, name: str) -> str:
        return graph.weight(name, lambda: self._source.tensor(name))


class BlockInt8(Precision):
    """8-bit weights with one scale per block of a row, for decoder steps of few rows.

    ONNX Runtime's MatMulNBits at accuracy level 4 quantises the activations by block as well, so
    that an outlier spoils one block and not the whole row.
    """

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        return self._product(graph, x, names, bits=8)

    def _product(self, graph: Graph, x: str, names: Sequence[str], bits: int) -> str:
        width = self._source.tensor(names[0]).shape[1]
        rows = sum(self._source.tensor(name).shape[0] for name in names)
        values, scales = self._blocks(graph, self._storage_key(names), names, bits)
        return graph.op(
            "MatMulNBits",
            x,
            values,
            scales,
            domain=MICROSOFT,
            K=width,
            N=rows,
            bits=bits,
            block_size=block_size(width),
            accuracy_level=4,
        )

    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        width = self._source.tensor(name).shape[1]
        values, scales = self._blocks(graph, name, [name], 8)
        rows = graph.op("Cast", graph.op("Gather", values, ids), to=1)  # [..., blocks, block]
        signed = graph.op("Sub", rows, graph.constant(128.0, np.float32))
        row_scales = graph.op("Unsqueeze", graph.op("Gather", scales, ids), graph.constant([-1]))
        flat = graph.op("Reshape", graph.op("Mul", signed, row_scales), graph.constant([0, 0, -1]))
        if width % block_size(width) == 0:
            return flat
        bounds = (graph.constant([0]), graph.constant([width]), graph.constant([-1]))
        return graph.op("Slice", flat, *bounds)

    def _blocks(self, graph: Graph, key: str, names: Sequence[str], bits: int) -> tuple[str, str]:
        """Names of the quantised values and their scales; a tied head shares the embedding's."""

        def quantized() -> tuple[np.ndarray, np.ndarray]:
            weight = self._stacked(names)
            return quantize_blocks(weight, block_size(weight.shape[1]), bits)

        return (
            graph.weight(f"{key}:blocks{bits}", lambda: quantized()[0]),
            graph.weight(f"{key}:scales{bits}", lambda: quantized()[1]),
        )

    def _storage_key(self, names: Sequence[str]) -> str:
        tied = self._source.architecture.tied_head
        return "+".join("shared.weight" if tied and n == "lm_head.weight" else n for n in names)


class BlockInt4(BlockInt8):
    """4-bit blocks, but for the weights that `exact` names and the embedding, which keep 8 bits."""

    def __init__(self, source: SourceModel, exact: Sequence[str] = ()) -> None:
        super().__init__(source)
        self._exact = tuple(exact)

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        bits = 8 if names[0].split(".")[-2] in self._exact else 4
        return self._product(graph, x, names, bits)


class RowInt8(Precision):
    """8-bit products with one scale per output and one per row of activations, for encoders.

    Each row is brought to the range of -1 to 1 first, so that an answer owes nothing to the other
    rows of its batch (DynamicQuantizeMatMul has one scale for all). Weights use 7 of their 8 bits:
    without VNNI instructions the processor adds pairs of products in 16 bits, which two full ranges
    overflow in silence. `exact` names weights whose activations have outliers; they get blocks.
    """

    def __init__(self, source: SourceModel, exact: Sequence[str] = ("wo",)) -> None:
        super().__init__(source)
        self._exact = tuple(exact)
        self._blocks = BlockInt8(source)
        self._quantized: dict[tuple[Graph, str], tuple[str, str]] = {}

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        if names[0].split(".")[-2] in self._exact:
            return self._blocks.linear(graph, x, names)
        key = "+".join(names)
        values = graph.weight(f"{key}:columns", lambda: quantize_columns(self._stacked(names).T)[0])
        scales = graph.weight(f"{key}:scale", lambda: quantize_columns(self._stacked(names).T)[1])
        rows, largest = self._rows(graph, x)
        step, middle = graph.constant(1 / 127, np.float32), graph.constant(128, np.uint8)
        product = graph.op(
            "MatMulIntegerToFloat", rows, values, step, scales, middle, domain=MICROSOFT
        )
        return graph.op("Mul", product, largest)

    def _rows(self, graph: Graph, x: str) -> tuple[str, str]:
        """x in 8 bits and each row's largest magnitude, once for all products of x."""
        if (graph, x) not in self._quantized:
            magnitudes = graph.op("ReduceMax", graph.op("Abs", x), graph.constant([-1]), keepdims=1)
            largest = graph.op("Max", magnitudes, graph.constant(1e-12, np.float32))
            step, middle = graph.constant(1 / 127, np.float32), graph.constant(128, np.uint8)
            rows = graph.op("QuantizeLinear", graph.op("Div", x, largest), step, middle)
            self._quantized[graph, x] = rows, largest
        return self._quantized[graph, x]

    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        return self._blocks.embedding(graph, ids, name)


def block_size(width: int) -> int:
    """The largest block that divides a row; rows that none divides are padded by the last one."""
    return next((block for block in _BLOCKS if width % block == 0), _BLOCKS[-1])


def quantize_blocks(weight: np.ndarray, block: int, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric blocks of 8 or 4 bits in MatMulNBits' layout, around the middle value.

    `weight` is [rows, width] float32. Returns values [rows, blocks, block × bits / 8] uint8 (two
    4-bit values in a byte, the first in the low half) and scales [rows, blocks] float32.
    """
    rows, width = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -width % block))).reshape(rows, -1, block)
    middle = 1 << (bits - 1)
    if bits == 8:
        scales = np.abs(padded).max(axis=-1) / (middle - 1)
    else:
        # The value of largest magnitude becomes -8, the range's longer end (as llama.cpp's Q4_0).
        place = np.abs(padded).argmax(axis=-1)[..., None]
        scales = np.take_along_axis(padded, place, axis=-1)[..., 0] / -middle
    safe = np.where(scales == 0, 1, scales)[..., None]
    values = np.clip(np.rint(padded / safe), -middle, middle - 1) + middle
    packed: np.ndarray = values.astype(np.uint8)
    if bits == 4:
        packed = packed[..., 0::2] | (packed[..., 1::2] << 4)
    return np.ascontiguousarray(packed), scales.astype(np.float32)


def quantize_columns(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 7-bit columns: [in, out] float32 to int8 values of -63 to 63 and scales [out]."""
    scales = (np.abs(weight).max(axis=0) / _COLUMN_LIMIT).astype(np.float32)
    safe = np.where(scales == 0, 1, scales)
    return np.rint(weight / safe).astype(np.int8), scales
