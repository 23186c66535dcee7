"""T5's decoder as ONNX nodes: one step over any number of tokens."""

from __future__ import annotations

import numpy as np

from edge.export.onnx.layers import Emitter, KeyValue
from edge.export.onnx.lm_head import FullHead, Head
from edge.export.position_bias import decoder_bias_by_distance
from edge.train.model.architecture import EMBEDDING


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
        """One decoder step over n tokens.

        Args:
            token_ids: int64 [batch, n].
            mask: of the source, int32 [batch, source].
            past: keys and values of earlier tokens, for each layer.
            cross: keys and values of the source, for each layer.
            bias: [1, heads, n, past + n], or layers × heads, from `position_bias`, or from
                `bias_of_last` in a loop.
            head: makes the logits; by default that of the whole vocabulary.

        Returns:
            logits [batch, n, columns of the head], and the keys and values of past and present.
        """
        graph = self.graph
        hidden = self.precision.embedding(graph, token_ids, EMBEDDING)
        x = self.norm(hidden, "decoder.block.0.layer.0.layer_norm")
        present = []
        biases = self.bias_of_layers(bias, self.shape.num_decoder_layers)
        for layer in range(self.shape.num_decoder_layers):
            block = f"decoder.block.{layer}.layer"
            query, key, value = self.self_attention_inputs(x, f"{block}.0.SelfAttention")
            context, cache = self.attention_with_past(
                query, key, value, past[layer], bias=biases[layer]
            )
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
            next_norm = (
                "decoder.final_layer_norm"
                if last
                else f"decoder.block.{layer + 1}.layer.0.layer_norm"
            )
            hidden, x = self.add_and_norm(hidden, update, next_norm)
        return self._logits(x, head or FullHead(self.source, self.precision)), present

    def _logits(self, x: str, head: Head) -> str:
        if self.shape.scale_decoder_outputs:
            scale = self.graph.constant(self.shape.d_model**-0.5, np.float32)
            x = self.graph.op("Mul", x, scale)
        return head.logits(self.graph, self.precision.head_input(self.graph, x))

    def position_bias(self, token_ids: str, past_key: str) -> str:
        """The position bias of new tokens; it also masks later tokens of the same call."""
        graph = self.graph
        new, length = self.positions(token_ids)
        past_length = graph.op(
            "Squeeze", graph.op("Shape", past_key, start=2, end=3), graph.constant([0])
        )
        queries = graph.op("Add", new, past_length)
        total = graph.op("Add", past_length, length)
        keys = graph.op("Range", graph.constant(0), total, graph.constant(1))
        return self.bias_between(queries, keys)

    def bias_between(self, queries: str, keys: str) -> str:
        """The bias [1, heads, queries, keys] for the positions of queries and keys, int64 vectors.

        Keys after their query are masked, wherever they are in the cache.
        """
        graph = self.graph
        reach = self.shape.relative_attention_max_distance
        distance = self.outer_difference(queries, keys)
        clipped = graph.op("Clip", distance, graph.constant(-1), graph.constant(reach))
        return self.bias(self._bias_table(), graph.op("Add", clipped, graph.constant(1)))

    def bias_of_last(self, longest: str) -> str:
        """The bias of the last of `longest` positions (int64 scalar): [1, heads, 1, longest].

        Its last t columns are the bias of position t - 1, so that a loop can slice it.
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
