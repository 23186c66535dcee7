"""ONNX graphs in the hub layout: file, input and output names as in Optimum's export of a T5.

Optimum's `ORTModelForSeq2SeqLM` and transformers.js load them. Names, order and element types of
inputs and outputs are those of optimum-onnx 0.1.0 (`TextSeq2SeqOnnxConfig`); the nodes are ours.

Both programs download only the files that they open, and in a browser one file can't refer to
another. So the encoder and the merged decoder contain their weights (only the embedding is stored
twice); the other two decoders refer to the merged decoder's file by offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.export.onnx.decoder import DecoderEmitter
from edge.export.onnx.encoder import EncoderEmitter
from edge.export.onnx.exporter import OnnxExporter, precisions
from edge.export.onnx.files import write_graphs
from edge.export.onnx.graph import BOOL, FLOAT, INT32, INT64, Dim, Graph, Weights
from edge.export.onnx.layers import KeyValue
from edge.export.onnx.precision import Precision
from edge.export.source import SourceModel

ENCODER_NAME = "encoder_model.onnx"
MERGED_NAME = "decoder_model_merged.onnx"
DECODER_NAME = "decoder_model.onnx"
DECODER_WITH_PAST_NAME = "decoder_with_past_model.onnx"
# The suffix of the only file where Optimum and transformers.js look for external weights.
DATA_SUFFIX = "_data"


class HubExporter(OnnxExporter):
    """Writes encoder, decoder, decoder with past, and the two decoders merged into one graph."""

    @classmethod
    def draft_record(cls, source: SourceModel) -> dict[str, Any]:
        """Empty: the layout has no search with drafts."""
        return {}

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """See `Exporter.write`."""
        encoder, decoder = precisions(source, quantization)
        weights = Weights()
        graph = _encoder_graph(source, encoder, weights)
        data_name = ENCODER_NAME + DATA_SUFFIX
        write_graphs(folder, weights, (ENCODER_NAME, graph), {}, data_name=data_name)
        decoders = _Decoders(source, encoder, decoder)
        write_graphs(
            folder,
            decoders.weights,
            (MERGED_NAME, decoders.merged()),
            {DECODER_NAME: decoders.first(), DECODER_WITH_PAST_NAME: decoders.with_past()},
            data_name=MERGED_NAME + DATA_SUFFIX,
        )
        return {}


def _encoder_graph(source: SourceModel, precision: Precision, weights: Weights) -> Graph:
    graph = Graph("encoder_model", weights)
    dims: list[Dim] = ["batch_size", "encoder_sequence_length"]
    input_ids = graph.input("input_ids", INT64, dims)
    mask = graph.input("attention_mask", INT64, dims)
    encoded = EncoderEmitter(graph, source, precision).last_hidden_state(input_ids, mask)
    graph.output("last_hidden_state", encoded, FLOAT, [*dims, source.architecture.d_model])
    return graph


class _Decoders:
    """The three decoders, with shared weights.

    `encoder` is the precision of the cross-attention's keys and values, as in the edge layout,
    where they belong to the encoder's graph.
    """

    def __init__(self, source: SourceModel, encoder: Precision, decoder: Precision) -> None:
        self.source = source
        self.shape = source.architecture
        self.weights = Weights()
        self._encoder = encoder
        self._decoder = decoder

    def first(self) -> Graph:
        """The decoder of the first step, which also returns the cross-attention keys and values."""
        graph = Graph("decoder_model", self.weights)
        mask, tokens = self._mask_and_tokens(graph)
        cross = self._cross(graph, self._encoded_input(graph))
        empty = self._emitter(graph).no_past(graph.op("Shape", tokens, start=0, end=1))
        past = [KeyValue(empty, empty)] * self.shape.num_decoder_layers
        self._emit(graph, tokens, mask, past, cross, cross)
        return graph

    def with_past(self) -> Graph:
        """The decoder of later steps: all keys and values are inputs."""
        graph = Graph("decoder_with_past_model", self.weights)
        mask, tokens = self._mask_and_tokens(graph)
        past, cross = self._past_inputs(graph, self.shape.d_kv)
        self._emit(graph, tokens, mask, past, cross, None)
        return graph

    def merged(self) -> Graph:
        """Both in one graph; if `use_cache_branch` is false, the past inputs are ignored.

        Only the cross-attention keys and values depend on a branch, so that the layers and their
        prepacked weights exist once. Optimum's first call passes pasts of width
        d_model // num_heads, which may differ from d_kv, so that dimension is dynamic.
        """
        graph = Graph("decoder_model_merged", self.weights)
        mask, tokens = self._mask_and_tokens(graph)
        encoded = self._encoded_input(graph)
        given_past, given_cross = self._past_inputs(graph, "head_size")
        use_past = graph.input("use_cache_branch", BOOL, [1])
        past = self._past_or_none(graph, tokens, use_past, given_past)
        cross, present = self._given_or_computed(graph, use_past, given_cross, encoded)
        self._emit(graph, tokens, mask, past, cross, present)
        return graph

    # -- inputs ----------------------------------------------------------------------------------

    @staticmethod
    def _mask_and_tokens(graph: Graph) -> tuple[str, str]:
        """The encoder's mask as int32, and the decoder's tokens."""
        mask = graph.input(
            "encoder_attention_mask", INT64, ["batch_size", "encoder_sequence_length"]
        )
        tokens = graph.input("input_ids", INT64, ["batch_size", "decoder_sequence_length"])
        return graph.op("Cast", mask, to=INT32), tokens

    def _encoded_input(self, graph: Graph) -> str:
        dims: list[Dim] = ["batch_size", "encoder_sequence_length", self.shape.d_model]
        return graph.input("encoder_hidden_states", FLOAT, dims)

    def _past_inputs(self, graph: Graph, head_size: Dim) -> tuple[list[KeyValue], list[KeyValue]]:
        """Past self-attention and cross-attention of each layer, in Optimum's order."""
        pairs: dict[str, list[KeyValue]] = {"decoder": [], "encoder": []}
        lengths = {
            "decoder": "past_decoder_sequence_length",
            "encoder": "encoder_sequence_length_out",
        }
        for layer in range(self.shape.num_decoder_layers):
            for side, length in lengths.items():
                dims: list[Dim] = ["batch_size", self.shape.num_heads, length, head_size]
                name = f"past_key_values.{layer}.{side}"
                key, value = (graph.input(f"{name}.{k}", FLOAT, dims) for k in ("key", "value"))
                pairs[side].append(KeyValue(key, value))
        return pairs["decoder"], pairs["encoder"]

    # -- branches --------------------------------------------------------------------------------

    def _past_or_none(
        self, graph: Graph, tokens: str, use_past: str, given: Sequence[KeyValue]
    ) -> list[KeyValue]:
        """The given past, or an empty one, as [batch, heads, length, d_kv]."""
        unlimited = graph.constant([np.iinfo(np.int64).max])
        end = graph.op("Where", use_past, unlimited, graph.constant([0]))
        batch = graph.op("Shape", tokens, start=0, end=1)
        heads, width = graph.constant([self.shape.num_heads]), graph.constant([self.shape.d_kv])

        def cut(past: str) -> str:
            kept = graph.op("Slice", past, graph.constant([0]), end, graph.constant([2]))
            length = graph.op("Shape", kept, start=2, end=3)
            shape = graph.op("Concat", batch, heads, length, width, axis=0)
            return graph.op("Reshape", kept, shape, allowzero=1)

        return [KeyValue(cut(pair.key), cut(pair.value)) for pair in given]

    def _given_or_computed(
        self, graph: Graph, use_past: str, given: Sequence[KeyValue], encoded: str
    ) -> tuple[list[KeyValue], list[KeyValue]]:
        """The cross-attention keys and values for the layers, and for the outputs.

        As in Optimum's export, the outputs are empty if the caller has them already; else they
        would be copied at every step.
        """
        computed = graph.body("computed")
        cross = self._cross(computed, encoded)
        self._add_outputs(computed, cross, "inner")
        self._add_outputs(computed, cross, "outer")
        passed = graph.body("passed")
        self._add_outputs(passed, given, "inner")
        dims = passed.constant([0, self.shape.num_heads, 1, self.shape.d_kv])
        empty = passed.op("Expand", passed.constant(0.0, np.float32), dims)
        self._add_outputs(passed, [KeyValue(empty, empty)] * len(given), "outer")
        values = graph.ops(
            "If",
            graph.op("Squeeze", use_past, graph.constant([0])),
            outputs=4 * len(given),
            then_branch=passed.proto(),
            else_branch=computed.proto(),
        )
        pairs = [KeyValue(*values[i : i + 2]) for i in range(0, len(values), 2)]
        return pairs[: len(given)], pairs[len(given) :]

    def _add_outputs(self, body: Graph, pairs: Sequence[KeyValue], side: str) -> None:
        dims: list[Dim] = [f"{side}_batch", self.shape.num_heads, f"{side}_length", self.shape.d_kv]
        for layer, pair in enumerate(pairs):
            name = f"{body.name}_{side}_{layer}"
            body.output(f"{name}_key", pair.key, FLOAT, dims)
            body.output(f"{name}_value", pair.value, FLOAT, dims)

    # -- nodes and outputs -----------------------------------------------------------------------

    def _emitter(self, graph: Graph) -> DecoderEmitter:
        return DecoderEmitter(graph, self.source, self._decoder)

    def _cross(self, graph: Graph, encoded: str) -> list[KeyValue]:
        return EncoderEmitter(graph, self.source, self._encoder).cross_key_values(encoded)

    def _emit(
        self,
        graph: Graph,
        tokens: str,
        mask: str,
        past: list[KeyValue],
        cross: list[KeyValue],
        present_cross: list[KeyValue] | None,
    ) -> None:
        """Add the layers, and the outputs in Optimum's order."""
        emitter = self._emitter(graph)
        bias = emitter.position_bias(tokens, past[0].key)
        logits, present = emitter.emit(tokens, mask, past, cross, bias)
        dims: list[Dim] = ["batch_size", "decoder_sequence_length", self.shape.vocab_size]
        graph.output("logits", logits, FLOAT, dims)
        for layer in range(self.shape.num_decoder_layers):
            name = f"present.{layer}"
            length = "past_decoder_sequence_length + decoder_sequence_length"
            self._present(graph, f"{name}.decoder", present[layer], length)
            if present_cross is not None:
                length = "encoder_sequence_length_out"
                self._present(graph, f"{name}.encoder", present_cross[layer], length)

    def _present(self, graph: Graph, name: str, pair: KeyValue, length: str) -> None:
        # Those of the merged decoder are empty after the first step.
        batch = "batch_size_out" if name.endswith("encoder") else "batch_size"
        dims: list[Dim] = [batch, self.shape.num_heads, length, self.shape.d_kv]
        graph.output(f"{name}.key", pair.key, FLOAT, dims)
        graph.output(f"{name}.value", pair.value, FLOAT, dims)
