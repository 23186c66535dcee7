"""The whole greedy search as one graph: encoder, then a Loop of decoder steps.

Apps in any language run it with ONNX Runtime alone: ids in, ids out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.export.onnx.decoder import DecoderEmitter
from edge.export.onnx.encoder import EncoderEmitter
from edge.export.onnx.graph import BOOL, FLOAT, INT32, INT64, Dim, Graph
from edge.export.onnx.layers import KeyValue
from edge.export.onnx.lm_head import Head, search_head
from edge.export.onnx.precision import Precision
from edge.export.source import SourceModel
from edge.runtime.artifact.manifest import Architecture


def emit_greedy(
    graph: Graph,
    source: SourceModel,
    encoder: Precision,
    decoder: Precision,
    shortlist: Sequence[int] | None = None,
) -> None:
    """Fill `graph` with the search.

    Inputs of the graph:
        input_ids, attention_mask: int64 [batch, source].
        max_new_tokens, min_new_tokens: int64 scalars; both count eos.

    Outputs of the graph:
        tokens: int64 [batch, steps], pad after eos.
        lengths: int64 [batch], including eos.
        log_probs: float32 [batch], the sums of the tokens' natural log-probabilities, normalized
            over the ids that can be chosen.
        finished: bool [batch], whether eos was reached.

    Args:
        graph: an empty graph.
        source: the model.
        encoder, decoder: the precision of each.
        shortlist: if given, the search chooses among these ids and those of the input.
    """
    input_ids = graph.input("input_ids", INT64, ["batch", "source"])
    mask = graph.input("attention_mask", INT64, ["batch", "source"])
    longest = graph.input("max_new_tokens", INT64, [])
    shortest = graph.input("min_new_tokens", INT64, [])
    cross = EncoderEmitter(graph, source, encoder).emit(input_ids, mask)
    head = search_head(graph, source, decoder, shortlist, input_ids, mask)
    search = _GreedySearch(graph, source, decoder, head, cross, graph.op("Cast", mask, to=INT32))
    tokens, lengths, log_probs, finished = search.emit(input_ids, longest, shortest)
    graph.output("tokens", tokens, INT64, ["batch", "steps"])
    graph.output("lengths", lengths, INT64, ["batch"])
    graph.output("log_probs", log_probs, FLOAT, ["batch"])
    graph.output("finished", finished, BOOL, ["batch"])


class Search:
    """A Loop of decoder steps over the keys and values of one encoder."""

    def __init__(
        self,
        graph: Graph,
        source: SourceModel,
        precision: Precision,
        head: Head,
        cross: list[KeyValue],
        mask: str,
    ) -> None:
        self.graph = graph
        self.source = source
        self.shape = source.architecture
        self.precision = precision
        self.head = head
        self.cross = cross
        self.mask = mask

    def input_caches(self, body: Graph, batch: Dim) -> list[KeyValue]:
        """Add the keys and values of earlier tokens as inputs of the loop's body."""
        dims: list[Dim] = [batch, self.shape.num_heads, "past", self.shape.d_kv]
        return [
            KeyValue(
                body.input(f"step_key_{layer}", FLOAT, dims),
                body.input(f"step_value_{layer}", FLOAT, dims),
            )
            for layer in range(self.shape.num_decoder_layers)
        ]

    def output_caches(self, body: Graph, batch: Dim, present: Sequence[KeyValue]) -> None:
        """Add the keys and values for the next step as outputs of the loop's body."""
        dims: list[Dim] = [batch, self.shape.num_heads, "present", self.shape.d_kv]
        for layer, cache in enumerate(present):
            body.output(f"next_key_{layer}", cache.key, FLOAT, dims)
            body.output(f"next_value_{layer}", cache.value, FLOAT, dims)


class _GreedySearch(Search):
    """Loop state: last token, finished, log_probs, lengths, caches."""

    def emit(self, input_ids: str, longest: str, shortest: str) -> list[str]:
        graph = self.graph
        emitter = DecoderEmitter(graph, self.source, self.precision)
        bias = emitter.bias_of_last(longest)
        batch = graph.op("Shape", input_ids, start=0, end=1)
        column = graph.op("Concat", batch, graph.constant([1]), axis=0)
        start = graph.constant(self.shape.decoder_start_token_id)
        empty = emitter.no_past(batch)
        state = [
            graph.op("Expand", start, column),
            graph.op("Cast", graph.op("Expand", graph.constant(0), batch), to=BOOL),
            graph.op("Expand", graph.constant(0.0, np.float32), batch),
            graph.op("Expand", graph.constant(0), batch),
            *[empty] * (2 * self.shape.num_decoder_layers),
        ]
        body = self._body(longest, shortest, bias)
        outputs = graph.ops("Loop", longest, "", *state, outputs=len(state) + 1, body=body.proto())
        _, finished, log_probs, lengths = outputs[:4]
        tokens = graph.op("Transpose", outputs[-1], perm=[1, 0])
        return [tokens, lengths, log_probs, finished]

    def _body(self, longest: str, shortest: str, bias: str) -> Graph:
        body = self.graph.body("step")
        step = body.input("step_number", INT64, [])
        body.input("step_condition", BOOL, [])
        token = body.input("step_token", INT64, ["batch", 1])
        finished = body.input("step_finished", BOOL, ["batch"])
        log_probs = body.input("step_log_probs", FLOAT, ["batch"])
        lengths = body.input("step_lengths", INT64, ["batch"])
        past = self.input_caches(body, "batch")
        emitter = DecoderEmitter(body, self.source, self.precision)
        sliced = self._bias_at(body, bias, step, longest)
        logits, present = emitter.emit(token, self.mask, past, self.cross, sliced, self.head)
        chosen = TokenSelector(body, self.head).emit(logits, step, shortest)
        best, gained = (body.op("Squeeze", value, body.constant([1])) for value in chosen)
        # Finished rows continue with pad, which does not count.
        running = body.op("Not", finished)
        pad = body.constant(self.shape.pad_token_id)
        best = body.op("Where", finished, pad, best)
        gained = body.op("Where", finished, body.constant(0.0, np.float32), gained)
        is_end = is_end_token(body, best, self.shape)
        now_finished = body.op("Or", finished, body.op("And", is_end, running))
        running_rows = body.op("Cast", body.op("Not", now_finished), to=INT32)
        unfinished = body.op("Cast", body.op("ReduceMax", running_rows, keepdims=0), to=BOOL)
        body.output("next_condition", unfinished, BOOL, [])
        next_token = body.op("Unsqueeze", best, body.constant([1]))
        body.output("next_token", next_token, INT64, ["batch", 1])
        body.output("next_finished", now_finished, BOOL, ["batch"])
        body.output("next_log_probs", body.op("Add", log_probs, gained), FLOAT, ["batch"])
        counted = body.op("Add", lengths, body.op("Cast", running, to=INT64))
        body.output("next_lengths", counted, INT64, ["batch"])
        self.output_caches(body, "batch", present)
        body.output("emitted", best, INT64, ["batch"])
        return body

    @staticmethod
    def _bias_at(body: Graph, bias: str, step: str, longest: str) -> str:
        """The last step + 1 columns of the bias."""
        first = body.op("Sub", body.op("Sub", longest, step), body.constant(1))
        axis = body.constant([0])
        bounds = (body.op("Unsqueeze", first, axis), body.op("Unsqueeze", longest, axis))
        return body.op("Slice", bias, *bounds, body.constant([3]))


def is_end_token(graph: Graph, tokens: str, shape: Architecture) -> str:
    """Whether each token ends an answer: bool, of the shape of `tokens`."""
    first, *others = (
        graph.op("Equal", tokens, graph.constant(token)) for token in shape.all_end_token_ids
    )
    for other in others:
        first = graph.op("Or", first, other)
    return first


class TokenSelector:
    """Chooses the best allowed token from the logits of each position."""

    def __init__(self, body: Graph, head: Head) -> None:
        self.body = body
        self.head = head

    def emit(self, logits: str, numbers: str, shortest: str) -> tuple[str, str]:
        """The best tokens [batch, n] and their log-probabilities [batch, n].

        Args:
            logits: [batch, n, columns].
            numbers: int64, scalar or [n]: how many new tokens precede each position.
            shortest: int64 scalar: eos is not allowed before so many tokens, as in transformers.
        """
        body, head = self.body, self.head
        too_short = body.op("Cast", body.op("Less", numbers, shortest), to=INT64)
        allowed = body.op("Add", logits, body.op("Gather", head.penalties(body), too_short))
        best = self._first_of_largest(allowed)
        log_probs = body.op("LogSoftmax", logits, axis=2)
        column = body.op("Unsqueeze", best, body.constant([2]))
        gained = body.op("GatherElements", log_probs, column, axis=2)
        return head.ids(body, best), body.op("Squeeze", gained, body.constant([2]))

    def _first_of_largest(self, values: str) -> str:
        """The column of each position's largest value, the first of equal ones: int64 [batch, n].

        In two stages, the group of columns and then the column in it, because ONNX Runtime's
        ReduceMax is seven times faster than its ArgMax.
        """
        body, size = self.body, self.head.group
        if size == 1:
            return body.op("ArgMax", values, axis=2, keepdims=0)
        groups = body.op("Reshape", values, body.constant([0, 0, -1, size]))
        largest = body.op("ReduceMax", groups, body.constant([3]), keepdims=0)
        group = body.op("ArgMax", largest, axis=2, keepdims=1)
        columns = body.op("GatherND", groups, group, batch_dims=2)  # [batch, n, size]
        offset = body.op("ArgMax", columns, axis=2, keepdims=1)
        column = body.op("Add", body.op("Mul", group, body.constant(size)), offset)
        return body.op("Squeeze", column, body.constant([2]))
