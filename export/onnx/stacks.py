"""T5's encoder and decoder, emitted as ONNX nodes with ONNX Runtime's fused operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edge.export.onnx.graph import MICROSOFT, Graph
from edge.export.onnx.lm_head import FullHead, Head
from edge.export.onnx.precision import Precision
from edge.export.position_bias import MASKED, decoder_bias_by_distance, encoder_bias_by_distance
from edge.export.source import SourceModel

FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


@dataclass(frozen=True)
class KeyValue:
    """Names of keys and values, each [batch, heads, length, d_kv]."""

    key: str
    value: str


class Emitter:
    """What encoder and decoder share: norms, attention, feed-forward."""

    def __init__(self, graph: Graph, source: SourceModel, precision: Precision) -> None:
        self.graph = graph
        self.source = source
        self.shape = source.architecture
        self.precision = precision

    def add_and_norm(self, hidden: str, update: str, name: str) -> tuple[str, str]:
        """(hidden + update, its RMS norm), in one operator."""
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
        """Attention of all heads: the context [batch, length, inner]."""
        return self._attention(query, key, value, "", mask, bias)[0]

    def attention_with_past(
        self, query: str, key: str, value: str, past: KeyValue, *, bias: str
    ) -> tuple[str, KeyValue]:
        """Attention to what came before, too: (context, keys and values of past and present)."""
        inputs = (query, key, value, "", "", bias, past.key, past.value)
        context, present_key, present_value = self._attention(*inputs, outputs=3)
        return context, KeyValue(present_key, present_value)

    def _attention(self, *inputs: str, outputs: int = 1) -> list[str]:
        """T5 has no 1/sqrt(d_kv): its scale is 1.

        One output where one is enough: ONNX Runtime copies all keys and values into the others.
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
        """Keys or values of no tokens, [batch, heads, 0, d_kv]; `batch` is int64 [1]."""
        graph = self.graph
        dims = graph.constant([self.shape.num_heads, 0, self.shape.d_kv])
        shape = graph.op("Concat", batch, dims, axis=0)
        return graph.op("Expand", graph.constant(0.0, np.float32), shape)

    def self_attention_inputs(self, x: str, name: str) -> list[str]:
        """Query, key and value, [batch, length, inner] each, from one product."""
        packed = self.precision.linear(self.graph, x, [f"{name}.{p}.weight" for p in "qkv"])
        return self.graph.ops("Split", packed, outputs=3, axis=-1, num_outputs=3)

    def feed_forward(self, x: str, name: str) -> str:
        graph = self.graph
        if self.shape.is_gated_act:
            both = self.precision.linear(graph, x, [f"{name}.wi_0.weight", f"{name}.wi_1.weight"])
            gate, up = graph.ops("Split", both, outputs=2, axis=-1, num_outputs=2)
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
                raise AssertionError(f"SourceModel let {other!r} through")

    def positions(self, ids: str) -> tuple[str, str]:
        """(0 … length-1 as int64 [length], length as a scalar) of ids [batch, length]."""
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

    def outer_difference(self, minuend: str, subtrahend: str) -> str:
        """Row i, column j: minuend[i] - subtrahend[j]."""
        graph = self.graph
        return graph.op(
            "Sub",
            graph.op("Unsqueeze", minuend, graph.constant([1])),
            graph.op("Unsqueeze", subtrahend, graph.constant([0])),
        )


class EncoderEmitter(Emitter):
    """Source ids → the cross-attention keys and values of every decoder layer."""

    def emit(self, input_ids: str, attention_mask: str) -> list[KeyValue]:
        return self.cross_key_values(self.last_hidden_state(input_ids, attention_mask))

    def cross_key_values(self, encoded: str) -> list[KeyValue]:
        """What the decoder's layers attend to, from `last_hidden_state`'s output."""
        return [self._cross(encoded, layer) for layer in range(self.shape.num_decoder_layers)]

    def last_hidden_state(self, input_ids: str, attention_mask: str) -> str:
        """Ids and mask int64 [batch, source] → the last norm's output [batch, source, width]."""
        graph = self.graph
        hidden = self.precision.embedding(graph, input_ids, "shared.weight")
        mask = graph.op("Cast", attention_mask, to=INT32)
        bias = self._position_bias(input_ids)
        x = self.norm(hidden, "encoder.block.0.layer.0.layer_norm")
        for layer in range(self.shape.num_layers):
            block = f"encoder.block.{layer}.layer"
            query, key, value = self.self_attention_inputs(x, f"{block}.0.SelfAttention")
            context = self.attention(query, key, value, mask=mask, bias=bias)
            update = self.precision.linear(graph, context, [f"{block}.0.SelfAttention.o.weight"])
            hidden, x = self.add_and_norm(hidden, update, f"{block}.1.layer_norm")
            update = self.feed_forward(x, f"{block}.1.DenseReluDense")
            last = layer + 1 == self.shape.num_layers
            following = (
                "encoder.final_layer_norm"
                if last
                else f"encoder.block.{layer + 1}.layer.0.layer_norm"
            )
            hidden, x = self.add_and_norm(hidden, update, following)
        return x

    def _position_bias(self, input_ids: str) -> str:
        graph = self.graph
        reach = self.shape.relative_attention_max_distance
        positions, _ = self.positions(input_ids)
        distance = self.outer_difference(positions, positions)  # query - key
        clipped = graph.op("Clip", distance, graph.constant(-reach), graph.constant(reach))
        table = graph.weight(
            "encoder.bias_by_distance", lambda: encoder_bias_by_distance(self.source)
        )
        return self.bias(table, graph.op("Sub", graph.constant(reach), clipped))

    def _cross(self, encoded: str, layer: int) -> KeyValue:
        name = f"decoder.block.{layer}.layer.1.EncDecAttention"
        packed = self.precision.linear(
            self.graph, encoded, [f"{name}.k.weight", f"{name}.v.weight"]
        )
        key, value = self.graph.ops("Split", packed, outputs=2, axis=-1, num_outputs=2)
        return KeyValue(self._heads(key), self._heads(value))

    def _heads(self, x: str) -> str:
        """[batch, length, inner] → [batch, heads, length, d_kv]."""
        shape = self.graph.constant([0, 0, self.shape.num_heads, self.shape.d_kv])
        split = self.graph.op("Reshape", x, shape)
        return self.graph.op("Transpose", split, perm=[0, 2, 1, 3])


class DecoderEmitter(Emitter):
    """Tokens and caches → logits and longer caches."""

    def emit(
        self,
        token_ids: str,
        mask: str,
        past: list[KeyValue],
        cross: list[KeyValue],
        bias: str,
        head: Head | None = None,
    ) -> tuple[str, list[KeyValue]]:
        """`token_ids` [batch, n], `mask` int32 [batch, source] → logits [batch, n, columns].

        Columns are those of `head`, by default the vocabulary. `bias` [1, heads, n, past + n] comes
        from `position_bias`, or from `bias_of_last` in a loop.
        """
        graph = self.graph
        hidden = self.precision.embedding(graph, token_ids, "shared.weight")
        x = self.norm(hidden, "decoder.block.0.layer.0.layer_norm")
        present = []
        for layer in range(self.shape.num_decoder_layers):
            block = f"decoder.block.{layer}.layer"
            query, key, value = self.self_attention_inputs(x, f"{block}.0.SelfAttention")
            context, cache = self.attention_with_past(query, key, value, past[layer], bias=bias)
            present.append(cache)
            update = self.precision.linear(graph, context, [f"{block}.0.SelfAttention.o.weight"])
            hidden, x = self.add_and_norm(hidden, update, f"{block}.1.layer_norm")
            name = f"{block}.1.EncDecAttention"
            query = self.precision.linear(graph, x, [f"{name}.q.weight"])
            context = self.attention(query, cross[layer].key, cross[layer].value, mask=mask)
            update = self.precision.linear(graph, context, [f"{name}.o.weight"])
            hidden, x = self.add_and_norm(hidden, update, f"{block}.2.layer_norm")
            update = self.feed_forward(x, f"{block}.2.DenseReluDense")
            last = layer + 1 == self.shape.num_decoder_layers
            following = (
                "decoder.final_layer_norm"
                if last
                else f"decoder.block.{layer + 1}.layer.0.layer_norm"
            )
            hidden, x = self.add_and_norm(hidden, update, following)
        return self._logits(x, head or FullHead(self.source, self.precision)), present

    def _logits(self, x: str, head: Head) -> str:
        if self.shape.scale_decoder_outputs:
            scale = self.graph.constant(self.shape.d_model**-0.5, np.float32)
            x = self.graph.op("Mul", x, scale)
        return head.logits(self.graph, x)

    def position_bias(self, token_ids: str, past_key: str) -> str:
        """The bias by distance, which also hides later tokens of the same call."""
        graph = self.graph
        fresh, length = self.positions(token_ids)
        past_length = graph.op(
            "Squeeze", graph.op("Shape", past_key, start=2, end=3), graph.constant([0])
        )
        queries = graph.op("Add", fresh, past_length)
        total = graph.op("Add", past_length, length)
        keys = graph.op("Range", graph.constant(0), total, graph.constant(1))
        return self.bias_between(queries, keys)

    def bias_between(self, queries: str, keys: str) -> str:
        """The bias [1, heads, queries, keys] of tokens at those places, int64 vectors.

        A key after its query is hidden, wherever it stands in the cache.
        """
        graph = self.graph
        reach = self.shape.relative_attention_max_distance
        distance = self.outer_difference(queries, keys)
        clipped = graph.op("Clip", distance, graph.constant(-1), graph.constant(reach))
        return self.bias(self._bias_table(), graph.op("Add", clipped, graph.constant(1)))

    def bias_of_last(self, longest: str) -> str:
        """The bias of the last of `longest` (int64 scalar) positions: [1, heads, 1, longest].

        Its last t columns are the bias of position t - 1 of a shorter sequence, so a loop slices
        instead of computing.
        """
        graph = self.graph
        last = graph.op("Sub", longest, graph.constant(1))
        keys = graph.op("Range", graph.constant(0), longest, graph.constant(1))
        reach = graph.constant(self.shape.relative_attention_max_distance)
        distance = graph.op("Min", graph.op("Sub", last, keys), reach)
        rows = graph.op("Unsqueeze", distance, graph.constant([0]))
        return self.bias(self._bias_table(), graph.op("Add", rows, graph.constant(1)))

    def _bias_table(self) -> str:
        return self.graph.weight(
            "decoder.bias_by_distance", lambda: decoder_bias_by_distance(self.source)
        )
