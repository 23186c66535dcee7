"""T5's layers as ONNX nodes with ONNX Runtime's fused operators: norm, attention, feed-forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.export.onnx.graph import MICROSOFT, Graph
from edge.export.onnx.precision import Precision
from edge.export.position_bias import MASKED
from edge.export.source import SourceModel


@dataclass(frozen=True)
class KeyValue:
    """The names of keys and values, each [batch, heads, length, d_kv]."""

    key: str
    value: str


class Emitter:
    """Adds the layers that encoder and decoder have in common to a graph."""

    def __init__(self, graph: Graph, source: SourceModel, precision: Precision) -> None:
        self.graph = graph
        self.source = source
        self.shape = source.architecture
        self.precision = precision

    def add_and_norm(self, hidden: str, update: str, name: str) -> tuple[str, str]:
        """hidden + update, and its RMS norm, in one operator."""
        outputs = self.graph.ops(
            "SkipSimplifiedLayerNormalization",
            hidden,
            update,
            self._norm_weight(name),
            outputs=4,
            unused=(1, 2),
            domain=MICROSOFT,
            epsilon=self.shape.layer_norm_epsilon,
        )
        return outputs[3], outputs[0]

    def norm(self, hidden: str, name: str) -> str:
        """The RMS norm of the last dimension, with the weight of the layer `name`."""
        return self.graph.op(
            "SimplifiedLayerNormalization",
            hidden,
            self._norm_weight(name),
            axis=-1,
            epsilon=self.shape.layer_norm_epsilon,
            stash_type=1,
        )

    def _norm_weight(self, name: str) -> str:
        return self.graph.weight(f"{name}.weight", lambda: self.source.tensor(f"{name}.weight"))

    def attention(self, query: str, key: str, value: str, *, mask: str = "", bias: str = "") -> str:
        """Attention over all heads: the context [batch, length, inner]."""
        return self._attention(query, key, value, "", mask, bias)[0]

    def attention_with_past(
        self, query: str, key: str, value: str, past: KeyValue, *, bias: str
    ) -> tuple[str, KeyValue]:
        """Attention over past and present: the context, and the keys and values of both."""
        inputs = (query, key, value, "", "", bias, past.key, past.value)
        context, present_key, present_value = self._attention(*inputs, outputs=3)
        return context, KeyValue(present_key, present_value)

    def _attention(self, *inputs: str, outputs: int = 1) -> list[str]:
        """MultiHeadAttention with scale 1, because T5 does not scale by 1/sqrt(d_kv).

        With one output, ONNX Runtime does not copy keys and values into the others.
        """
        given = list(inputs)
        while given[-1] == "":
            given.pop()
        return self.graph.ops(
            "MultiHeadAttention",
            *given,
            outputs=outputs,
            domain=MICROSOFT,
            num_heads=self.shape.num_heads,
            scale=1.0,
            mask_filter_value=MASKED,
        )

    def no_past(self, batch: str) -> str:
        """Empty keys or values, [batch, heads, 0, d_kv]; `batch` is int64 [1]."""
        graph = self.graph
        dims = graph.constant([self.shape.num_heads, 0, self.shape.d_kv])
        shape = graph.op("Concat", batch, dims, axis=0)
        return graph.op("Expand", graph.constant(0.0, np.float32), shape)

    def self_attention_inputs(self, x: str, name: str) -> list[str]:
        """Query, key and value, each [batch, length, inner], of the same input."""
        return self.precision.linears(self.graph, x, [f"{name}.{p}.weight" for p in "qkv"])

    def feed_forward(self, x: str, name: str) -> str:
        """The feed-forward layer without norm and residual: [batch, length, d_model]."""
        graph = self.graph
        if self.shape.is_gated_act:
            both = [f"{name}.wi_0.weight", f"{name}.wi_1.weight"]
            gate, up = self.precision.linears(graph, x, both)
            inner = graph.op("Mul", self._activation(gate), up)
        else:
            inner = self._activation(self.precision.linear(graph, x, [f"{name}.wi.weight"]))
        return self.precision.linear(graph, inner, [f"{name}.wo.weight"])

    def _activation(self, x: str) -> str:
        match self.shape.dense_act_fn:
            case "relu":
                return self.graph.op("Relu", x)
            case "gelu_new":
                return self.graph.op("Gelu", x, approximate="tanh")
            case "gelu":
                return self.graph.op("Gelu", x)
            case "silu":
                return self.graph.op("Mul", x, self.graph.op("Sigmoid", x))
            case other:
                raise AssertionError(f"unknown activation {other!r}")

    def positions(self, ids: str) -> tuple[str, str]:
        """0 … length - 1 (int64 [length]) and the length (scalar) of ids [batch, length]."""
        graph = self.graph
        length = graph.op("Squeeze", graph.op("Shape", ids, start=1, end=2), graph.constant([0]))
        return graph.op("Range", graph.constant(0), length, graph.constant(1)), length

    def bias(self, table: str, rows: str) -> str:
        """Bias [1, heads, queries, keys] from a table [distances, heads] by row numbers."""
        gathered = self.graph.op("Gather", table, rows)  # [queries, keys, heads]
        return self.graph.op(
            "Unsqueeze",
            self.graph.op("Transpose", gathered, perm=[2, 0, 1]),
            self.graph.constant([0]),
        )

    def bias_of_layers(self, bias: str, layers: int) -> list[str]:
        """The bias of each layer: the same for all, or its part of [1, layers × heads, …]."""
        if not self.shape.has_bias_per_layer or layers == 1:
            return [bias] * layers
        return self.graph.ops("Split", bias, outputs=layers, axis=1, num_outputs=layers)

    def outer_difference(self, minuend: str, subtrahend: str) -> str:
        """Row i, column j: minuend[i] - subtrahend[j]."""
        graph = self.graph
        return graph.op(
            "Sub",
            graph.op("Unsqueeze", minuend, graph.constant([1])),
            graph.op("Unsqueeze", subtrahend, graph.constant([0])),
        )
