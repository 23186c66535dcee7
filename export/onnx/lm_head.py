"""lm_head as a search uses it: hidden states to columns of logits, and columns to ids.

A shortlist makes fewer columns: those of the ids that it lists, and those of the ids in the input,
so that a name seen nowhere before can still be copied. The rows of lm_head that belong to the
shortlist ids are stored apart and are what a step reads; the input's rows are gathered from the whole
matrix once per request.

Source of shortlists: Jean et al. 2015 (arXiv:1412.2007), and Marian's lexical shortlists.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edge.export.onnx.graph import Dim, Graph
from edge.export.onnx.precision import Precision
from edge.export.source import SourceModel

_FLOAT, _INT64, _INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


class Head(abc.ABC):
    """What turns hidden states into choices. `graph` is the one that the node goes into."""

    @abc.abstractmethod
    def logits(self, graph: Graph, x: str) -> str:
        """[batch, n, d_model] → [batch, n, columns]."""

    @abc.abstractmethod
    def choosable(self, graph: Graph, logits: str) -> str:
        """Logits of columns that may be chosen; those left out come last."""

    @abc.abstractmethod
    def eos(self, graph: Graph) -> str:
        """float32 [1, choosable columns]: 1 at eos, 0 elsewhere."""

    @property
    def group(self) -> int:
        """A size of groups that choosable columns fall into without a rest; 1 if none is known."""
        return 1

    @abc.abstractmethod
    def ids(self, graph: Graph, columns: str) -> str:
        """The ids of columns, both int64 [batch, n]."""


class FullHead(Head):
    """Every id has its column."""

    def __init__(self, source: SourceModel, precision: Precision) -> None:
        self._source = source
        self._precision = precision

    def logits(self, graph: Graph, x: str) -> str:
        return self._precision.linear(graph, x, ["lm_head.weight"])

    def choosable(self, graph: Graph, logits: str) -> str:
        if self._source.pieces == self._source.architecture.vocab_size:
            return logits
        bounds = (graph.constant([0]), graph.constant([self._source.pieces]), graph.constant([2]))
        return graph.op("Slice", logits, *bounds)

    def eos(self, graph: Graph) -> str:
        return graph.weight("greedy.eos", self._eos_column)

    def _eos_column(self) -> np.ndarray:
        column = np.zeros((1, self._source.pieces), dtype=np.float32)
        column[0, self._source.architecture.eos_token_id] = 1.0
        return column

    @property
    def group(self) -> int:
        count = self._source.pieces
        return max(size for size in range(1, math.isqrt(count) + 1) if count % size == 0)

    def ids(self, graph: Graph, columns: str) -> str:
        return columns


@dataclass(frozen=True)
class Extra:
    """Names of the input's own columns: ids int64 [batch, extra], their rows of lm_head as float32
    [batch, d_model, extra], and a mask float32 [batch, extra], 0 or -inf (padding, repeats and what
    is shortlist anyway)."""

    ids: str
    weights: str
    mask: str

    @classmethod
    def of_input(
        cls,
        graph: Graph,
        source: SourceModel,
        precision: Precision,
        shortlist: Sequence[int],
        input_ids: str,
        attention_mask: str,
    ) -> Extra:
        """The columns of input_ids [batch, source] that the list lacks, once per request.

        Positions that add nothing in any row of the batch are left out, but for the first, so that
        there is always a column.
        """
        new = graph.op(
            "Gather", graph.weight("shortlist.new", lambda: _new(source, shortlist)), input_ids
        )
        real = graph.op("Cast", attention_mask, to=TensorProto.BOOL)
        wanted = graph.op("And", graph.op("And", new, real), _first_occurrence(graph, input_ids))
        in_any = graph.op(
            "ReduceMax",
            graph.op("Cast", wanted, to=_INT32),
            graph.constant([0]),
            keepdims=0,
        )
        length = graph.op("Squeeze", graph.op("Shape", input_ids, start=1, end=2))
        zero = graph.constant(0)
        positions = graph.op("Range", zero, length, graph.constant(1))
        kept = graph.op(
            "Or", graph.op("Cast", in_any, to=TensorProto.BOOL), graph.op("Equal", positions, zero)
        )
        places = graph.op("Squeeze", graph.op("NonZero", kept), graph.constant([0]))
        ids = graph.op("Gather", input_ids, places, axis=1)
        mask = graph.op(
            "Where",
            graph.op("Gather", wanted, places, axis=1),
            graph.constant(0.0, np.float32),
            graph.constant(-np.inf, np.float32),
        )
        return cls(ids, precision.head_rows(graph, ids), mask)

    @classmethod
    def inputs(cls, graph: Graph, source: SourceModel) -> Extra:
        """The same as inputs of a graph; `outputs` gives another graph's values these names."""
        shapes = cls._shapes(source)
        return cls(*(graph.input(name, *shapes[name]) for name in shapes))

    def outputs(self, graph: Graph, source: SourceModel) -> None:
        values = (self.ids, self.weights, self.mask)
        for (name, (dtype, dims)), value in zip(self._shapes(source).items(), values, strict=True):
            graph.output(name, value, dtype, dims)

    @staticmethod
    def _shapes(source: SourceModel) -> dict[str, tuple[int, list[Dim]]]:
        return {
            "extra_ids": (_INT64, ["batch", "extra"]),
            "extra_weights": (_FLOAT, ["batch", source.architecture.d_model, "extra"]),
            "extra_mask": (_FLOAT, ["batch", "extra"]),
        }


class ListedHead(Head):
    """Columns of the shortlist ids, then those of the input. What serves all steps goes into `graph`,
    the steps into the graphs that the methods are given."""

    def __init__(
        self,
        graph: Graph,
        source: SourceModel,
        precision: Precision,
        shortlist: Sequence[int],
        extra: Extra,
    ) -> None:
        self._source = source
        self._precision = precision
        self._listed = np.asarray(shortlist, dtype=np.int64)
        self._extra = extra
        axis = graph.constant([1])
        self._mask = graph.op("Unsqueeze", extra.mask, axis)
        batch = graph.op("Shape", extra.ids, start=0, end=1)
        rows = graph.op("Concat", batch, graph.constant([self._listed.size]), axis=0)
        own = graph.op("Expand", graph.weight("shortlist.ids", lambda: self._listed[None]), rows)
        self._ids = graph.op("Concat", own, extra.ids, axis=1)
        count = graph.op("Shape", extra.ids, start=1, end=2)
        nothing = graph.op(
            "Expand",
            graph.constant(0.0, np.float32),
            graph.op("Concat", graph.constant([1]), count, axis=0),
        )
        self._eos = graph.op(
            "Concat", graph.weight("shortlist.eos", self._eos_column), nothing, axis=1
        )

    def _eos_column(self) -> np.ndarray:
        return (self._listed[None] == self._source.architecture.eos_token_id).astype(np.float32)

    def logits(self, graph: Graph, x: str) -> str:
        shortlist = self._precision.listed_head(graph, x, self._listed)
        extra = graph.op("Add", graph.op("MatMul", x, self._extra.weights), self._mask)
        return graph.op("Concat", shortlist, extra, axis=2)

    def choosable(self, graph: Graph, logits: str) -> str:
        return logits

    def eos(self, graph: Graph) -> str:
        return self._eos

    def ids(self, graph: Graph, columns: str) -> str:
        return graph.op("GatherElements", self._ids, columns, axis=1)

    def over_vocabulary(self, graph: Graph, logits: str) -> str:
        """Logits [batch, n, columns] in the places of their ids: [batch, n, vocab], else -inf."""
        size = graph.constant([self._source.architecture.vocab_size])
        outer = graph.op("Shape", logits, start=0, end=2)
        nowhere = graph.op(
            "Expand",
            graph.constant(-np.inf, np.float32),
            graph.op("Concat", outer, size, axis=0),
        )
        ids = graph.op(
            "Expand",
            graph.op("Unsqueeze", self._ids, graph.constant([1])),
            graph.op("Shape", logits),
        )
        # A masked column may have the id of another: the larger stands.
        return graph.op("ScatterElements", nowhere, ids, logits, axis=2, reduction="max")


def _new(source: SourceModel, shortlist: Sequence[int]) -> np.ndarray:
    """bool [vocab]: ids with a piece of text that are not shortlist."""
    new = np.arange(source.architecture.vocab_size) < source.pieces
    new[np.asarray(shortlist, dtype=np.int64)] = False
    return new


def _first_occurrence(graph: Graph, ids: str) -> str:
    """bool [batch, length]: whether no earlier position of the row has the same id."""
    rows = graph.op("Unsqueeze", ids, graph.constant([2]))
    columns = graph.op("Unsqueeze", ids, graph.constant([1]))
    same = graph.op("Cast", graph.op("Equal", rows, columns), to=_INT32)
    first = graph.op("ArgMax", same, axis=2, keepdims=0)
    length = graph.op("Squeeze", graph.op("Shape", ids, start=1, end=2))
    positions = graph.op("Range", graph.constant(0), length, graph.constant(1))
    return graph.op("Equal", first, positions)


def search_head(
    graph: Graph,
    source: SourceModel,
    precision: Precision,
    shortlist: Sequence[int] | None,
    input_ids: str,
    attention_mask: str,
) -> Head:
    """The head of a search in one graph: the whole one, or that of a shortlist."""
    if shortlist is None:
        return FullHead(source, precision)
    extra = Extra.of_input(graph, source, precision, shortlist, input_ids, attention_mask)
    return ListedHead(graph, source, precision, shortlist, extra)
