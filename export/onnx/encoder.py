"""T5's encoder as ONNX nodes, up to the cross-attention keys and values of the decoder."""

from __future__ import annotations

from edge.export.onnx.graph import INT32
from edge.export.onnx.layers import Emitter, KeyValue
from edge.export.position_bias import encoder_bias_by_distance
from edge.train.model.architecture import EMBEDDING


class EncoderEmitter(Emitter):
    """Source ids → the cross-attention keys and values of every decoder layer."""

    def emit(self, input_ids: str, attention_mask: str) -> list[KeyValue]:
        """Ids and mask int64 [batch, source] → keys and values of each decoder layer."""
        return self.cross_key_values(self.last_hidden_state(input_ids, attention_mask))

    def cross_key_values(self, encoded: str) -> list[KeyValue]:
        """The keys and values of each decoder layer, from the output of `last_hidden_state`."""
        return [self._cross(encoded, layer) for layer in range(self.shape.num_decoder_layers)]

    def last_hidden_state(self, input_ids: str, attention_mask: str) -> str:
        """Ids and mask int64 [batch, source] → the final norm's output [batch, source, d_model]."""
        graph = self.graph
        hidden = self.precision.embedding(graph, input_ids, EMBEDDING)
        mask = graph.op("Cast", attention_mask, to=INT32)
        biases = self.bias_of_layers(self._position_bias(input_ids), self.shape.num_layers)
        x = self.norm(hidden, "encoder.block.0.layer.0.layer_norm")
        for layer in range(self.shape.num_layers):
            block = f"encoder.block.{layer}.layer"
            query, key, value = self.self_attention_inputs(x, f"{block}.0.SelfAttention")
            context = self.attention(query, key, value, mask=mask, bias=biases[layer])
            update = self.precision.linear(graph, context, [f"{block}.0.SelfAttention.o.weight"])
            hidden, x = self.add_and_norm(hidden, update, f"{block}.1.layer_norm")
            update = self.feed_forward(x, f"{block}.1.DenseReluDense")
            last = layer + 1 == self.shape.num_layers
            next_norm = (
                "encoder.final_layer_norm"
                if last
                else f"encoder.block.{layer + 1}.layer.0.layer_norm"
            )
            hidden, x = self.add_and_norm(hidden, update, next_norm)
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
        both = [f"{name}.k.weight", f"{name}.v.weight"]
        key, value = self.precision.linears(self.graph, encoded, both)
        return KeyValue(self._heads(key), self._heads(value))

    def _heads(self, x: str) -> str:
        """[batch, length, inner] → [batch, heads, length, d_kv]."""
        shape = self.graph.constant([0, 0, self.shape.num_heads, self.shape.d_kv])
        split = self.graph.op("Reshape", x, shape)
        return self.graph.op("Transpose", split, perm=[0, 2, 1, 3])
