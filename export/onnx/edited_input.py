"""The input edited by a draft head, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.export.draft_head import KERNEL, MAX_PHRASE, DraftHead
from edge.export.onnx.graph import Graph

_NOTHING = -1  # fills the places of absent tokens


def emit_edited_input(graph: Graph, head: DraftHead, encoded: str, ids: str) -> str:
    """The edited tokens, int64 [edited]; the last source token, eos, is always kept.

    Args:
        graph: where the nodes go.
        head: the draft head.
        encoded: the encoder's output, float32 [1, source, d_model].
        ids: int64 [1, source].
    """
    logits = _logits(graph, head, encoded)
    parts = graph.constant([1, 1 + len(head.phrases)])
    keep, insert = graph.ops("Split", logits, parts, outputs=2, axis=1)
    column = graph.constant([-1, 1])
    tokens = graph.op("Reshape", ids, column)
    kept = graph.op("Reshape", graph.op("Greater", keep, graph.constant(0.0, np.float32)), column)
    last = graph.op("Sub", graph.op("Shape", tokens, start=0, end=1), graph.constant([1]))
    count = graph.op("Squeeze", graph.op("Shape", tokens, start=0, end=1), graph.constant([0]))
    places = graph.op("Range", graph.constant(0), count, graph.constant(1))
    is_last = graph.op("Reshape", graph.op("Equal", places, last), column)
    kept_tokens = graph.op("Where", graph.op("Or", kept, is_last), tokens, graph.constant(_NOTHING))
    table = graph.weight("draft_head.phrases", lambda: _phrase_table(head))
    chosen = graph.op("Reshape", graph.op("ArgMax", insert, axis=1), graph.constant([-1]))
    phrases = graph.op("Gather", table, chosen, axis=0)  # [source, MAX_PHRASE]
    both = graph.op("Concat", phrases, kept_tokens, axis=1)
    flat = graph.op("Reshape", both, graph.constant([-1]))
    present = graph.op("Greater", flat, graph.constant(_NOTHING))
    return graph.op("Compress", flat, present, axis=0)


def _logits(graph: Graph, head: DraftHead, encoded: str) -> str:
    """Float32 [1, 2 + phrases, source]."""

    def convolve(x: str, name: str, kernel: int) -> str:
        weights = [
            graph.weight(f"draft_head.{part}", _array(head, part))
            for part in (name, f"{name}_bias")
        ]
        return graph.op("Conv", x, *weights, pads=[kernel // 2] * 2, kernel_shape=[kernel])

    x = graph.op("Transpose", encoded, perm=[0, 2, 1])
    hidden = graph.op("Relu", convolve(x, "first", KERNEL))
    hidden = graph.op("Add", hidden, graph.op("Relu", convolve(hidden, "second", KERNEL)))
    return convolve(hidden, "output", 1)


def _array(head: DraftHead, name: str) -> Callable[[], np.ndarray]:
    return lambda: np.asarray(getattr(head, name))


def _phrase_table(head: DraftHead) -> np.ndarray:
    """Int64 [1 + phrases, MAX_PHRASE]; row 0 inserts nothing."""
    table = np.full((1 + len(head.phrases), MAX_PHRASE), _NOTHING, dtype=np.int64)
    for row, phrase in enumerate(head.phrases, 1):
        table[row, : len(phrase)] = phrase
    return table
