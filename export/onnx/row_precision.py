"""8-bit matrix products with one scale per row of activations, as ONNX nodes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from edge.export.onnx.graph import FLOAT, MICROSOFT, Graph
from edge.export.onnx.layouts import quantize_columns
from edge.export.onnx.precision import SHORTLIST_HEAD, BlockInt8, Once, WeightFactory
from edge.export.quantization.grid import Quantized
from edge.export.source import SourceModel
from edge.train.model.architecture import HEAD

_MIDDLE = 128  # the unsigned 8-bit integer that stands for 0
_STEPS = 127  # integers between 0 and a row's largest magnitude
_TINY = 1e-12  # the largest magnitude of a row of zeros
# Conditioning can't rotate the inputs of feed-forward outputs, whose range stays wide: each row
# has a scale per quarter.
_WIDE_PARTS = 4


class RowInt8(BlockInt8):
    """8-bit products with one scale per output and one per row of activations, for many rows.

    A row's integers and scale depend on nothing but the row, so that other rows of the batch have
    no influence (DynamicQuantizeMatMul has one scale for all rows). Embeddings have blocks.
    """

    def __init__(self, source: SourceModel) -> None:
        super().__init__(source)
        self._quantized: dict[tuple[Graph, str], tuple[list[str], list[str]]] = {}

    def linear(self, graph: Graph, x: str, names: Sequence[str]) -> str:
        """See `Precision.linear`."""
        return self._product_of_parts(graph, x, "+".join(names), names[0], self._weight(names))

    def linears(self, graph: Graph, x: str, names: Sequence[str]) -> list[str]:
        """See `Precision.linears`: a product for each weight, since a split would copy them."""
        return [self.linear(graph, x, [name]) for name in names]

    def shortlist_head(self, graph: Graph, x: str, shortlist: np.ndarray) -> str:
        """See `Precision.shortlist_head`."""
        head = self._weight([HEAD])
        return self._product_of_parts(graph, x, SHORTLIST_HEAD, HEAD, lambda: head()[shortlist])

    def head_rows(self, graph: Graph, ids: str) -> str:
        """See `Precision.head_rows`."""
        values, scales = self._columns(graph, HEAD, HEAD, self._weight([HEAD]))
        columns = graph.op("Transpose", graph.op("Gather", values, ids, axis=1), perm=[1, 0, 2])
        chosen = graph.op("Unsqueeze", graph.op("Gather", scales, ids), graph.constant([1]))
        return graph.op("Mul", graph.op("Cast", columns, to=FLOAT), chosen)

    @property
    def _shares_embedding(self) -> bool:
        return False  # it is stored in blocks

    def _weight(self, names: Sequence[str]) -> WeightFactory:
        return lambda: self._stacked(names)

    def _product_of_parts(
        self, graph: Graph, x: str, key: str, name: str, weight: WeightFactory
    ) -> str:
        """x times a weight, `key`, whose inputs are those of the layer `name`."""
        width = self._shapes[name][1]
        wide = name.endswith(".wo.weight") and width % _WIDE_PARTS == 0
        parts = _WIDE_PARTS if wide else 1
        one, middle = graph.constant(1.0, np.float32), graph.constant(_MIDDLE, np.uint8)
        products = []
        for part, (rows, row_scales) in enumerate(
            zip(*self._quantize_rows(graph, x, width, parts), strict=True)
        ):
            bounds = slice(part * width // parts, (part + 1) * width // parts)
            part_key = key if parts == 1 else f"{key}:{part}"
            values, scales = self._columns(graph, part_key, name, weight, bounds)
            product = graph.op(
                "MatMulIntegerToFloat", rows, values, one, scales, middle, domain=MICROSOFT
            )
            products.append(graph.op("Mul", product, row_scales))
        # ONNX Runtime adds two values at a time faster than all in one Sum.
        return functools.reduce(lambda total, product: graph.op("Add", total, product), products)

    def _columns(
        self,
        graph: Graph,
        key: str,
        name: str,
        weight: WeightFactory,
        bounds: slice = slice(None),
    ) -> tuple[str, str]:
        """The names of integers [in, out] and scales [out] of a weight's columns in `bounds`.

        `name` is that of the layer whose inputs' second moments weigh the rounding errors.
        """

        def quantized() -> Quantized:
            moments = self._source.input_moments(name)
            part = None if moments is None else moments[bounds, bounds]
            return quantize_columns(weight()[:, bounds].T, part)

        both = Once(quantized)
        values = graph.weight(f"{key}:columns", both.values)
        return values, graph.weight(f"{key}:scale", both.scales)

    def _quantize_rows(
        self, graph: Graph, x: str, width: int, parts: int
    ) -> tuple[list[str], list[str]]:
        """x [batch, length, width] in 8 bits, and the scales of its rows, once for all products.

        QuantizeLinear takes the scales as those of blocks: no scaled copy of x is written, as Div
        would, nor one of its magnitudes, as Abs would.

        Returns:
            For each of `parts` equal parts of a row: its integers [batch, length, width / parts],
            and the scale of each row [batch, length, 1].
        """
        if (graph, x) not in self._quantized:
            blocks, axis = x, graph.constant([-1])
            if parts > 1:
                blocks = graph.op("Reshape", x, graph.constant([0, 0, parts, -1]))
            keepdims = int(parts == 1)
            highest = graph.op("ReduceMax", blocks, axis, keepdims=keepdims)
            lowest = graph.op("Neg", graph.op("ReduceMin", blocks, axis, keepdims=keepdims))
            largest = graph.op("Max", highest, lowest, graph.constant(_TINY, np.float32))
            scale = graph.op("Mul", largest, graph.constant(1 / _STEPS, np.float32))
            middle = graph.op("Expand", graph.constant(_MIDDLE, np.uint8), graph.op("Shape", scale))
            size = width // parts
            rows = graph.op("QuantizeLinear", x, scale, middle, axis=-1, block_size=size)
            both = ([rows], [scale])
            if parts > 1:
                split = functools.partial(graph.ops, "Split", axis=-1, num_outputs=parts)
                both = (split(rows, outputs=parts), split(scale, outputs=parts))
            self._quantized[graph, x] = both
        return self._quantized[graph, x]
