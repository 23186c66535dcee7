"""Matrix products and embeddings in float32, 8 and 4 bits, as ONNX nodes."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from edge.export.onnx.graph import MICROSOFT, Graph
from edge.export.onnx.layouts import block_size, quantize_blocks
from edge.export.quantization.grid import Quantized
from edge.export.quantization.sensitivity import kept_weights
from edge.export.source import SourceModel
from edge.train.model.architecture import EMBEDDING, HEAD, expected_shapes

SHORTLIST_HEAD = f"{HEAD}:shortlist"
_EMBEDDING_BITS = 8  # few rows are read, so more bits cost no time

WeightFactory = Callable[[], np.ndarray]  # reads a weight [out, in] on demand


class Precision(abc.ABC):
    """How weights are stored and multiplied.

    `names` are state-dict names of weights [out, in]. Several weights with the same input are
    concatenated along their outputs, so that one product computes them all.
    """

    def __init__(self, source: SourceModel) -> None:
        self._source = source

    @abc.abstractmethod
    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        """x [..., in] times the transpose of the concatenated weights: [..., out], float32."""

    def linears(self, graph: Graph, x: str, names: Sequence[str]) -> list[str]:
        """x [..., in] times the transpose of each weight: values [..., out], all of one width."""
        packed = self.linear(graph, x, names)
        return graph.ops("Split", packed, outputs=len(names), axis=-1, num_outputs=len(names))

    @abc.abstractmethod
    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        """Rows of a weight [vocabulary, width] by id: [..., width], float32."""

    def head_input(self, graph: Graph, x: str) -> str:
        """What the rows of lm_head multiply, from the decoder's output x [..., d_model]."""
        return x

    @abc.abstractmethod
    def shortlist_head(self, graph: Graph, x: str, shortlist: np.ndarray) -> str:
        """x [..., d_model] times the `shortlist` rows of lm_head: [..., n].

        Args:
            graph: where the nodes go.
            x: the hidden states.
            shortlist: int64 [n]; the same in every graph of an artifact, which stores these rows
                separately from lm_head.
        """

    @abc.abstractmethod
    def head_rows(self, graph: Graph, ids: str) -> str:
        """Rows of lm_head by id [batch, n], float32 and transposed: [batch, d_model, n]."""

    def _stacked(self, names: Sequence[str]) -> np.ndarray:
        return np.concatenate([self._source.tensor(name) for name in names])


class Float32(Precision):
    """Weights and arithmetic in float32."""

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        """See `Precision.linear`."""
        if names == [HEAD] and self._source.architecture.tied_head:
            # Stored once, as the embedding.
            return graph.op("MatMul", x, self._transposed_embedding(graph))
        return graph.op("MatMul", x, self._transposed(graph, names))

    def _transposed(self, graph: Graph, names: Sequence[str]) -> str:
        return graph.weight("+".join(names), lambda: self._stacked(names).T)

    def _transposed_embedding(self, graph: Graph) -> str:
        return graph.op("Transpose", self._embedding_weight(graph, EMBEDDING), perm=[1, 0])

    def embedding(self, graph: Graph, ids: str, name: str) -> str:
        """See `Precision.embedding`."""
        return graph.op("Gather", self._embedding_weight(graph, name), ids)

    def shortlist_head(self, graph: Graph, x: str, shortlist: np.ndarray) -> str:
        """See `Precision.shortlist_head`."""
        weight = graph.weight(SHORTLIST_HEAD, lambda: self._source.tensor(HEAD)[shortlist].T)
        return graph.op("MatMul", x, weight)

    def head_rows(self, graph: Graph, ids: str) -> str:
        """See `Precision.head_rows`."""
        if self._source.architecture.tied_head:
            rows = self.embedding(graph, ids, EMBEDDING)
            return graph.op("Transpose", rows, perm=[0, 2, 1])
        weight = self._transposed(graph, [HEAD])
        return graph.op("Transpose", graph.op("Gather", weight, ids, axis=1), perm=[1, 0, 2])

    def _embedding_weight(self, graph: Graph, name: str) -> str:
        return graph.weight(name, lambda: self._source.tensor(name))


class BlockInt8(Precision):
    """8-bit weights with one scale per block of a row, for decoder steps with few rows.

    ONNX Runtime's MatMulNBits at accuracy level 4 also quantizes activations by block, so that an
    outlier affects one block, not the whole row.
    """

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        """See `Precision.linear`."""
        bits, stored = self._bits(names), self._stored_names(names)
        shapes = [self._shapes[name] for name in stored]
        rows, width = sum(shape[0] for shape in shapes), shapes[0][1]
        values, scales = self._blocks(graph, "+".join(stored), lambda: self._stacked(stored), bits)
        return self._product(graph, x, values, scales, (rows, width), bits)

    def head_input(self, graph: Graph, x: str) -> str:
        """See `Precision.head_input`; a factorized head uses the embedding's rows."""
        projection = self._source.head_projection
        if projection is None or not self._shares_embedding:
            return x
        # In float32: with 8 bits 4 more answers of 997 changed, and it is small beside the head.
        return graph.op("MatMul", x, graph.weight("head_projection", lambda: projection.T))

    def shortlist_head(self, graph: Graph, x: str, shortlist: np.ndarray) -> str:
        """See `Precision.shortlist_head`."""
        bits, stored = self._bits([HEAD]), self._stored_names([HEAD])
        values, scales = self._blocks(
            graph, SHORTLIST_HEAD, lambda: self._stacked(stored)[shortlist], bits
        )
        shape = (shortlist.size, self._source.architecture.d_model)
        return self._product(graph, x, values, scales, shape, bits)

    def _bits(self, names: Sequence[str]) -> int:
        return 8

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Weight name → shape; lm_head has one, tied or not."""
        return expected_shapes(dataclasses.replace(self._source.architecture, tied_head=False))

    @staticmethod
    def _product(
        graph: Graph, x: str, values: str, scales: str, shape: tuple[int, int], bits: int
    ) -> str:
        rows, width = shape
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
        """See `Precision.embedding`."""
        return self._rows(graph, ids, name, lambda: self._source.tensor(name), _EMBEDDING_BITS)

    def head_rows(self, graph: Graph, ids: str) -> str:
        """See `Precision.head_rows`."""
        bits, stored = self._bits([HEAD]), self._stored_names([HEAD])
        rows = self._rows(graph, ids, stored[0], lambda: self._stacked(stored), bits)
        return graph.op("Transpose", rows, perm=[0, 2, 1])

    def _rows(self, graph: Graph, ids: str, key: str, weight: WeightFactory, bits: int) -> str:
        """Rows of a stored weight by id: [..., width], float32."""
        width = self._source.architecture.d_model
        values, scales = self._blocks(graph, key, weight, bits)
        packed = graph.op("Gather", values, ids)  # [..., blocks, block × bits / 8]
        numbers = packed if bits == 8 else _unpacked(graph, packed, block_size(width))
        middle = graph.constant(float(1 << (bits - 1)), np.float32)
        signed = graph.op("Sub", graph.op("Cast", numbers, to=1), middle)
        row_scales = graph.op("Unsqueeze", graph.op("Gather", scales, ids), graph.constant([-1]))
        flat = graph.op("Reshape", graph.op("Mul", signed, row_scales), graph.constant([0, 0, -1]))
        if width % block_size(width) == 0:
            return flat
        bounds = (graph.constant([0]), graph.constant([width]), graph.constant([-1]))
        return graph.op("Slice", flat, *bounds)

    def _blocks(self, graph: Graph, key: str, weight: WeightFactory, bits: int) -> tuple[str, str]:
        """The names of the quantized values and their scales."""

        def quantized() -> Quantized:
            array = weight()
            moments = self._source.input_moments(key.split("+")[0].split(":")[0])
            return quantize_blocks(array, block_size(array.shape[1]), bits, moments)

        both = Once(quantized)
        return (
            graph.weight(f"{key}:blocks{bits}", both.values),
            graph.weight(f"{key}:scales{bits}", both.scales),
        )

    @property
    def _shares_embedding(self) -> bool:
        """Whether lm_head is the embedding, or a product away from it, and stored the same way."""
        tied = self._source.architecture.tied_head or self._source.head_projection is not None
        return tied and self._bits([HEAD]) == _EMBEDDING_BITS

    def _stored_names(self, names: Sequence[str]) -> Sequence[str]:
        """The names under which weights are stored; a shared head has that of the embedding."""
        return [EMBEDDING] if names == [HEAD] and self._shares_embedding else names


class BlockInt4(BlockInt8):
    """4-bit blocks; the embedding, and the matrices whose rounding costs most, have 8 bits.

    See `edge.export.quantization.sensitivity.kept_weights`.
    """

    def __init__(self, source: SourceModel, keep_int8: Sequence[str] = ()) -> None:
        super().__init__(source)
        self._in_int8 = kept_weights(source).union(keep_int8)

    def _bits(self, names: Sequence[str]) -> int:
        return 8 if names[0] in self._in_int8 else 4


def _unpacked(graph: Graph, packed: str, block: int) -> str:
    """4-bit values [batch, n, blocks, block / 2] → [batch, n, blocks, block]."""
    low = graph.op("BitwiseAnd", packed, graph.constant(15, np.uint8))
    high = graph.op("BitShift", packed, graph.constant(4, np.uint8), direction="RIGHT")
    axis = graph.constant([-1])
    halves = [graph.op("Unsqueeze", half, axis) for half in (low, high)]
    pairs = graph.op("Concat", *halves, axis=-1)
    return graph.op("Reshape", pairs, graph.constant([0, 0, 0, block]))


class Once:
    """Values and scales of a weight that is quantized at the first use of either."""

    def __init__(self, quantize: Callable[[], Quantized]) -> None:
        self._quantize = quantize

    @functools.cached_property
    def _both(self) -> Quantized:
        return self._quantize()

    def values(self) -> np.ndarray:
        """The integers."""
        return self._both[0]

    def scales(self) -> np.ndarray:
        """The scales."""
        return self._both[1]
