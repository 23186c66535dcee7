"""The ONNX exporter: two greedy searches, plain and speculative, and encoder and decoder alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edge.export.base import Exporter
from edge.export.onnx.decoder import DecoderEmitter
from edge.export.onnx.encoder import EncoderEmitter
from edge.export.onnx.files import write_graphs
from edge.export.onnx.graph import FLOAT, INT32, INT64, Dim, Graph, Weights
from edge.export.onnx.greedy import emit_greedy
from edge.export.onnx.layers import KeyValue
from edge.export.onnx.lm_head import FullHead, Head, InputColumns, ShortlistHead
from edge.export.onnx.precision import BlockInt4, BlockInt8, Float32, Precision
from edge.export.onnx.row_precision import RowInt8
from edge.export.onnx.speculative import emit_speculative
from edge.export.source import SourceModel
from edge.export.tolerance import EIGHT_BIT, EXACT, FOUR_BIT, Tolerance
from edge.train.model.architecture import HEAD

GREEDY_NAME = "model.onnx"
SPECULATIVE_NAME = "speculative.onnx"
ENCODER_NAME = "encoder.onnx"
DECODER_NAME = "decoder.onnx"
SCORING_NAME = "scoring.onnx"  # the decoder with the full head, if there is a shortlist


class OnnxExporter(Exporter):
    """Writes model.onnx, speculative.onnx, encoder.onnx and decoder.onnx.

    With a shortlist also scoring.onnx.
    """

    format = "onnx"
    quantizations: ClassVar[Mapping[str, str]] = {
        "float32": "weights and arithmetic in float32",
        "int8": "8-bit weights, and activations in matrix products",
        "int8_row": "as int8, for batches: one scale per row in the decoder, too",
        "int4_mixed": "as int8, with 4-bit weights in the decoder except lm_head",
        "int4": "as int8, with 4-bit weights in the decoder",
    }
    full_precision: ClassVar[Collection[str]] = ("float32",)
    auto = "int8"
    candidates: ClassVar[Sequence[str]] = ("int4", "int4_mixed", "int8")
    for_batches: ClassVar[Collection[str]] = ("int8_row",)
    aliases: ClassVar[Mapping[str, str]] = {"none": "float32", "fp32": "float32"}
    tolerances: ClassVar[Mapping[str, Tolerance]] = {
        "float32": EXACT,
        "int8": EIGHT_BIT,
        "int8_row": EIGHT_BIT,
        "int4_mixed": FOUR_BIT,
        "int4": FOUR_BIT,
    }
    higher_precision: ClassVar[Mapping[str, str]] = {
        "int4": "int4_mixed",
        "int4_mixed": "int8",
        "int8_row": "int8",
    }
    supports_shortlist = True
    supports_bias_per_layer = True

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """See `Exporter.write`."""
        self._write(source, quantization, folder, None)
        return {"threads": 1}

    def write_with_shortlist(
        self, source: SourceModel, quantization: str, folder: Path, shortlist: Sequence[int]
    ) -> None:
        """See `Exporter.write_with_shortlist`."""
        self._write(source, quantization, folder, shortlist)

    @classmethod
    def draft_record(cls, source: SourceModel) -> dict[str, Any]:
        """See `Exporter.draft_record`; the head is in speculative.onnx."""
        head = source.draft_head
        return {"phrases": len(head.phrases), **head.record} if head else {}

    def _write(
        self, source: SourceModel, quantization: str, folder: Path, shortlist: Sequence[int] | None
    ) -> None:
        weights = Weights()
        encoder, decoder = precisions(source, quantization)
        greedy = Graph("greedy", weights)
        emit_greedy(greedy, source, encoder, decoder, shortlist)
        speculative = Graph("speculative", weights)
        emit_speculative(speculative, source, encoder, decoder, shortlist)
        others = {
            SPECULATIVE_NAME: speculative,
            ENCODER_NAME: _encoder_graph(source, encoder, decoder, weights, shortlist),
            DECODER_NAME: _decoder_graph(source, decoder, weights, shortlist),
        }
        if shortlist is not None:
            # Targets to score may have any token, so they need the full head.
            others[SCORING_NAME] = _decoder_graph(source, decoder, weights, None)
        write_graphs(folder, weights, (GREEDY_NAME, greedy), others)


def precisions(source: SourceModel, quantization: str) -> tuple[Precision, Precision]:
    """The precisions of encoder and decoder.

    Only the decoder, which reads its weights for every token, gets 4 bits.
    """
    if quantization == "float32":
        return Float32(source), Float32(source)
    encoder = RowInt8(source)
    match quantization:
        case "int8":
            return encoder, BlockInt8(source)
        case "int8_row":
            return encoder, encoder
        case "int4_mixed":
            # lm_head decides between nearly equal tokens.
            return encoder, BlockInt4(source, keep_int8=(HEAD,))
        case _:
            return encoder, BlockInt4(source)


def _encoder_graph(
    source: SourceModel,
    precision: Precision,
    decoder: Precision,
    weights: Weights,
    shortlist: Sequence[int] | None,
) -> Graph:
    graph = Graph("encoder", weights)
    input_ids = graph.input("input_ids", INT64, ["batch", "source"])
    mask = graph.input("attention_mask", INT64, ["batch", "source"])
    heads = source.architecture.num_heads
    for layer, cross in enumerate(EncoderEmitter(graph, source, precision).emit(input_ids, mask)):
        shape: list[Dim] = ["batch", heads, "source", source.architecture.d_kv]
        graph.output(f"cross_key_{layer}", cross.key, FLOAT, shape)
        graph.output(f"cross_value_{layer}", cross.value, FLOAT, shape)
    if shortlist is not None:
        columns = InputColumns.of_input(graph, source, decoder, shortlist, input_ids, mask)
        columns.outputs(graph, source)
    return graph


def _decoder_graph(
    source: SourceModel, precision: Precision, weights: Weights, shortlist: Sequence[int] | None
) -> Graph:
    graph = Graph("decoder", weights)
    shape = source.architecture
    tokens = graph.input("decoder_input_ids", INT64, ["batch", "tokens"])
    mask = graph.input("encoder_attention_mask", INT64, ["batch", "source"])
    past = _key_values(graph, source, "past", "past")
    cross = _key_values(graph, source, "cross", "source")
    emitter = DecoderEmitter(graph, source, precision)
    bias = emitter.position_bias(tokens, past[0].key)
    head: Head = FullHead(source, precision)
    if shortlist is not None:
        columns = InputColumns.inputs(graph, source)
        head = ShortlistHead(graph, source, precision, shortlist, columns)
    cast = graph.op("Cast", mask, to=INT32)
    logits, present = emitter.emit(tokens, cast, past, cross, bias, head)
    if isinstance(head, ShortlistHead):
        logits = head.over_vocabulary(graph, logits)
    graph.output("logits", logits, FLOAT, ["batch", "tokens", shape.vocab_size])
    for layer, cache in enumerate(present):
        dims: list[Dim] = ["batch", shape.num_heads, "present", shape.d_kv]
        graph.output(f"present_key_{layer}", cache.key, FLOAT, dims)
        graph.output(f"present_value_{layer}", cache.value, FLOAT, dims)
    return graph


def _key_values(graph: Graph, source: SourceModel, kind: str, length: str) -> list[KeyValue]:
    shape = source.architecture
    dims: list[Dim] = ["batch", shape.num_heads, length, shape.d_kv]
    return [
        KeyValue(
            graph.input(f"{kind}_key_{layer}", FLOAT, dims),
            graph.input(f"{kind}_value_{layer}", FLOAT, dims),
        )
        for layer in range(shape.num_decoder_layers)
    ]
