"""lm_head in a search: from hidden states to columns of logits, and from columns to ids.

With a shortlist there are fewer columns: those of its ids, and those of the ids in the input, so
that unseen names can still be copied. The lm_head rows of the shortlist are stored separately, and
each step reads only these; the rows of the input's ids are gathered from the full matrix once per
request.

Source of shortlists: Jean et al. 2015 (arXiv:1412.2007), and Marian's lexical shortlists.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.export.onnx.graph import BOOL, FLOAT, INT32, INT64, Dim, Graph
from edge.export.onnx.precision import Precision
from edge.export.source import SourceModel
from edge.train.model.architecture import HEAD

_FORBIDDEN = -1e30  # added to the logit of a token that must not be chosen


class Head(abc.ABC):
    """Computes logits, and maps their columns to ids. `graph` is where nodes are added."""

    @abc.abstractmethod
    def logits(self, graph: Graph, x: str) -> str:
        """[batch, n, d_model] → [batch, n, columns]."""

    @abc.abstractmethod
    def penalties(self, graph: Graph) -> str:
        """float32 [2, columns], added to logits: row 0 where an answer may end, else row 1."""

    @property
    def group(self) -> int:
        """A group size that divides the number of columns; 1 if none is known."""
        return 1

    @abc.abstractmethod
    def ids(self, graph: Graph, columns: str) -> str:
        """The ids of columns; both int64 [batch, n]."""


class FullHead(Head):
    """The full head: one column for every id."""

    def __init__(self, source: SourceModel, precision: Precision) -> None:
        self._source = source
        self._precision = precision

    def logits(self, graph: Graph, x: str) -> str:
        """See `Head.logits`."""
        return self._precision.linear(graph, x, [HEAD])

    def penalties(self, graph: Graph) -> str:
        """See `Head.penalties`; ids without a piece of text are never chosen."""
        return graph.weight("greedy.penalties", self._penalties)

    def _penalties(self) -> np.ndarray:
        size = self._source.architecture.vocab_size
        penalties = _end_penalties(self._source, np.arange(size))
        penalties[:, self._source.pieces :] = _FORBIDDEN
        return penalties

    @property
    def group(self) -> int:
        """The largest divisor of the number of columns up to its square root."""
        count = self._source.architecture.vocab_size
        return max(size for size in range(1, math.isqrt(count) + 1) if count % size == 0)

    def ids(self, graph: Graph, columns: str) -> str:
        """Columns are ids."""
        return columns


@dataclass(frozen=True)
class InputColumns:
    """The names of values for the columns of the input's ids.

    Attributes:
        ids: int64 [batch, extra].
        weights: the ids' rows of lm_head, float32 [batch, d_model, extra].
        mask: float32 [batch, extra]: -inf for padding, repeated ids and ids of the shortlist, else
            0.
    """

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
    ) -> InputColumns:
        """The columns of those input_ids [batch, source] that the shortlist lacks.

        Positions that add no id in any row of the batch are left out, except the first, so that
        there is always a column.
        """
        new = graph.op(
            "Gather", graph.weight("shortlist.new", lambda: _is_new(source, shortlist)), input_ids
        )
        real = graph.op("Cast", attention_mask, to=BOOL)
        wanted = graph.op("And", graph.op("And", new, real), _first_occurrence(graph, input_ids))
        in_any = graph.op(
            "ReduceMax",
            graph.op("Cast", wanted, to=INT32),
            graph.constant([0]),
            keepdims=0,
        )
        length = graph.op("Squeeze", graph.op("Shape", input_ids, start=1, end=2))
        zero = graph.constant(0)
        positions = graph.op("Range", zero, length, graph.constant(1))
        kept = graph.op("Or", graph.op("Cast", in_any, to=BOOL), graph.op("Equal", positions, zero))
        kept_positions = graph.op("Squeeze", graph.op("NonZero", kept), graph.constant([0]))
        ids = graph.op("Gather", input_ids, kept_positions, axis=1)
        mask = graph.op(
            "Where",
            graph.op("Gather", wanted, kept_positions, axis=1),
            graph.constant(0.0, np.float32),
            graph.constant(-np.inf, np.float32),
        )
        return cls(ids, precision.head_rows(graph, ids), mask)

    @classmethod
    def inputs(cls, graph: Graph, source: SourceModel) -> InputColumns:
        """Add the columns as inputs of a graph."""
        shapes = cls._shapes(source)
        return cls(*(graph.input(name, *shapes[name]) for name in shapes))

    def outputs(self, graph: Graph, source: SourceModel) -> None:
        """Add the columns as outputs of a graph, by the names that `inputs` uses."""
        values = (self.ids, self.weights, self.mask)
        for (name, (dtype, dims)), value in zip(self._shapes(source).items(), values, strict=True):
            graph.output(name, value, dtype, dims)

    @staticmethod
    def _shapes(source: SourceModel) -> dict[str, tuple[int, list[Dim]]]:
        return {
            "extra_ids": (INT64, ["batch", "extra"]),
            "extra_weights": (FLOAT, ["batch", source.architecture.d_model, "extra"]),
            "extra_mask": (FLOAT, ["batch", "extra"]),
        }


class ShortlistHead(Head):
    """The head of a shortlist: the columns of its ids, then those of the input's ids."""

    def __init__(
        self,
        graph: Graph,
        source: SourceModel,
        precision: Precision,
        shortlist: Sequence[int],
        input_columns: InputColumns,
    ) -> None:
        """Add the nodes that serve all steps to `graph`."""
        self._source = source
        self._precision = precision
        self._shortlist = np.asarray(shortlist, dtype=np.int64)
        self._input_columns = input_columns
        axis = graph.constant([1])
        self._mask = graph.op("Unsqueeze", input_columns.mask, axis)
        batch = graph.op("Shape", input_columns.ids, start=0, end=1)
        rows = graph.op("Concat", batch, graph.constant([self._shortlist.size]), axis=0)
        listed = graph.op(
            "Expand", graph.weight("shortlist.ids", lambda: self._shortlist[None]), rows
        )
        self._ids = graph.op("Concat", listed, input_columns.ids, axis=1)
        count = graph.op("Shape", input_columns.ids, start=1, end=2)
        zeros = graph.op(
            "Expand",
            graph.constant(0.0, np.float32),
            graph.op("Concat", graph.constant([2]), count, axis=0),
        )
        listed_penalties = graph.weight(
            "shortlist.penalties", lambda: _end_penalties(source, self._shortlist)
        )
        self._penalties = graph.op("Concat", listed_penalties, zeros, axis=1)

    def logits(self, graph: Graph, x: str) -> str:
        """See `Head.logits`."""
        shortlist = self._precision.shortlist_head(graph, x, self._shortlist)
        extra = graph.op("MatMul", x, self._input_columns.weights)
        return graph.op("Concat", shortlist, graph.op("Add", extra, self._mask), axis=2)

    def penalties(self, graph: Graph) -> str:
        """See `Head.penalties`."""
        return self._penalties

    def ids(self, graph: Graph, columns: str) -> str:
        """See `Head.ids`."""
        return graph.op("GatherElements", self._ids, columns, axis=1)

    def over_vocabulary(self, graph: Graph, logits: str) -> str:
        """Logits [batch, n, columns] scattered to their ids: [batch, n, vocab_size], else -inf."""
        size = graph.constant([self._source.architecture.vocab_size])
        outer = graph.op("Shape", logits, start=0, end=2)
        absent = graph.op(
            "Expand",
            graph.constant(-np.inf, np.float32),
            graph.op("Concat", outer, size, axis=0),
        )
        ids = graph.op(
            "Expand",
            graph.op("Unsqueeze", self._ids, graph.constant([1])),
            graph.op("Shape", logits),
        )
        # A masked column may have the same id as another; the larger value wins.
        return graph.op("ScatterElements", absent, ids, logits, axis=2, reduction="max")


def _end_penalties(source: SourceModel, ids: np.ndarray) -> np.ndarray:
    """float32 [2, len(ids)]: 0, but in row 1 end tokens are forbidden."""
    penalties = np.zeros((2, ids.size), np.float32)
    penalties[1, np.isin(ids, source.architecture.all_end_token_ids)] = _FORBIDDEN
    return penalties


def _is_new(source: SourceModel, shortlist: Sequence[int]) -> np.ndarray:
    """bool [vocab_size]: ids with a piece of text that the shortlist lacks."""
    new = np.arange(source.architecture.vocab_size) < source.pieces
    new[np.asarray(shortlist, dtype=np.int64)] = False
    return new


def _first_occurrence(graph: Graph, ids: str) -> str:
    """bool [batch, length]: whether the id occurs for the first time in its row."""
    rows = graph.op("Unsqueeze", ids, graph.constant([2]))
    columns = graph.op("Unsqueeze", ids, graph.constant([1]))
    same = graph.op("Cast", graph.op("Equal", rows, columns), to=INT32)
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
    """The full head, or with a shortlist its head, for a search in one graph."""
    if shortlist is None:
        return FullHead(source, precision)
    columns = InputColumns.of_input(graph, source, precision, shortlist, input_ids, attention_mask)
    return ShortlistHead(graph, source, precision, shortlist, columns)
