"""Speculative greedy search as one graph: drafts from the input, several tokens verified per step.

Query rewriting copies most of its output from its input. The draft is what followed the last two
generated tokens in the source, or earlier in the output. If the model has a draft head, its edited
input comes before the source, and the first draft is all of it. One decoder step over the draft
finds how many of its tokens plain greedy search would choose, and one more token. The answer is
that of plain greedy search; only the number of steps differs.

Sources: Leviathan et al. 2023 (arXiv:2211.17192) for drafting and verification; Saxena 2023,
"Prompt Lookup Decoding", for drafts from the prompt, here from the encoder's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.export.onnx.decoder import DecoderEmitter
from edge.export.onnx.edited_input import emit_edited_input
from edge.export.onnx.encoder import EncoderEmitter
from edge.export.onnx.graph import BOOL, FLOAT, INT32, INT64, Graph
from edge.export.onnx.greedy import Search, TokenSelector, is_end_token
from edge.export.onnx.lm_head import search_head
from edge.export.onnx.precision import Precision
from edge.export.source import SourceModel

# Padding ids before the first token; they differ, so that they never match each other.
_BEFORE_OUTPUT, _BEFORE_TEXT = -1, -2
# The position of a rejected draft token: after that of every query, so it is always masked.
_REJECTED = 1 << 40
# The longest draft from an edited input, which bounds what a wrong one costs.
_LONGEST_EDITED = 64


def emit_speculative(
    graph: Graph,
    source: SourceModel,
    encoder: Precision,
    decoder: Precision,
    shortlist: Sequence[int] | None = None,
) -> None:
    """Fill `graph` with the search, for one input at a time; arguments as in `emit_greedy`.

    Inputs of the graph: as those of `emit_greedy` with a batch of 1, and
        draft_tokens: int64 scalar, the maximum draft length.

    Outputs of the graph:
        tokens: int64 [1, new tokens], including eos.
        log_probs: float32 [1].
        finished: bool [1].
        steps: int64 scalar, the number of decoder steps.
        edited: int64 [edited], the edited input; only with a draft head.
    """
    ids = graph.input("input_ids", INT64, [1, "source"])
    mask = graph.input("attention_mask", INT64, [1, "source"])
    longest = graph.input("max_new_tokens", INT64, [])
    shortest = graph.input("min_new_tokens", INT64, [])
    drafts = graph.input("draft_tokens", INT64, [])
    emitter = EncoderEmitter(graph, source, encoder)
    encoded = emitter.last_hidden_state(ids, mask)
    cross = emitter.cross_key_values(encoded)
    edited = None
    if source.draft_head is not None:
        edited = emit_edited_input(graph, source.draft_head, encoded, ids)
        graph.output("edited", edited, INT64, ["edited"])
    head = search_head(graph, source, decoder, shortlist, ids, mask)
    search = _SpeculativeSearch(
        graph, source, decoder, head, cross, graph.op("Cast", mask, to=INT32)
    )
    output, log_probs, finished, steps = search.emit(ids, edited, longest, shortest, drafts)
    graph.output("tokens", output, INT64, [1, "new"])
    graph.output("log_probs", log_probs, FLOAT, [1])
    graph.output("finished", finished, BOOL, [1])
    graph.output("steps", steps, INT64, [])


class _SpeculativeSearch(Search):
    """Loop state: output (start token first), log_probs, finished, draft length, steps, caches,
    and the positions of the cached keys.

    Rejected draft tokens stay in the caches, at a position that is always masked: removing them
    would copy all caches at every step.
    """

    def emit(
        self, ids: str, edited: str | None, longest: str, shortest: str, drafts: str
    ) -> list[str]:
        graph = self.graph
        start = graph.constant([self.shape.decoder_start_token_id])
        # With the start token in front, the first draft is the beginning of the source.
        text = graph.op("Concat", start, graph.op("Squeeze", ids, graph.constant([0])), axis=0)
        first_width, self._growth = drafts, 1
        if edited is not None:
            text = graph.op("Concat", start, edited, text, axis=0)
            first_width = drafts = graph.op("Max", drafts, graph.constant(_LONGEST_EDITED))
            self._growth = 2
        one = graph.constant([1])
        dims = graph.constant([1, self.shape.num_heads, 0, self.shape.d_kv])
        empty = graph.op("Expand", graph.constant(0.0, np.float32), dims)
        state = [
            graph.op("Identity", start),
            graph.op("Expand", graph.constant(0.0, np.float32), one),
            graph.op("Cast", graph.constant(0), to=BOOL),
            graph.op("Identity", first_width),
            graph.op("Identity", graph.constant(0)),
            graph.op("Expand", graph.constant(0), graph.constant([0])),
            *[empty] * (2 * self.shape.num_decoder_layers),
        ]
        body = self._body(text, longest, shortest, drafts)
        output, log_probs, finished, _, steps, *_ = graph.ops(
            "Loop", longest, "", *state, outputs=len(state), body=body.proto()
        )
        generated = _slice(graph, output, graph.constant([1]), _end(graph), 0)
        axis = graph.constant([0])
        return [
            graph.op("Unsqueeze", generated, axis),
            log_probs,
            graph.op("Unsqueeze", finished, axis),
            steps,
        ]

    def _body(self, text: str, longest: str, shortest: str, drafts: str) -> Graph:
        body = self.graph.body("step")
        body.input("step_number", INT64, [])
        body.input("step_condition", BOOL, [])
        output = body.input("step_output", INT64, ["length"])
        log_probs = body.input("step_log_probs", FLOAT, [1])
        body.input("step_finished", BOOL, [])
        width = body.input("step_width", INT64, [])
        steps = body.input("step_steps", INT64, [])
        positions = body.input("step_positions", INT64, ["past"])
        past = self.input_caches(body, 1)
        # The number of new tokens so far, [1].
        generated = body.op("Sub", _length(body, output), body.constant([1]))
        draft = self._draft(body, text, output, width, body.op("Sub", longest, generated))
        last = _slice(body, output, body.constant([-1]), _end(body), 0)
        tokens = body.op("Unsqueeze", body.op("Concat", last, draft, axis=0), body.constant([0]))
        emitter = DecoderEmitter(body, self.source, self.precision)
        offsets = _range(body, _scalar(body, body.op("Shape", tokens, start=1, end=2)))
        numbers = body.op("Add", generated, offsets)  # of new tokens before each position
        bias = emitter.bias_between(numbers, body.op("Concat", positions, numbers, axis=0))
        logits, present = emitter.emit(tokens, self.mask, past, self.cross, bias, self.head)
        chosen = TokenSelector(body, self.head).emit(logits, numbers, shortest)
        best, gained = (body.op("Squeeze", value, body.constant([0])) for value in chosen)
        accepted, ended, agreed = self._accepted(body, draft, best)
        new = _slice(body, best, body.constant([0]), accepted, 0)
        gains = body.op(
            "ReduceSum", _slice(body, gained, body.constant([0]), accepted, 0), keepdims=1
        )
        longer = body.op("Concat", output, new, axis=0)
        limit = body.op("Add", longest, body.constant(1))  # with the start token
        below_limit = body.op("Less", _scalar(body, _length(body, longer)), limit)
        unfinished = body.op("And", body.op("Not", ended), below_limit)
        body.output("next_condition", unfinished, BOOL, [])
        body.output("next_output", longer, INT64, ["longer"])
        body.output("next_log_probs", body.op("Add", log_probs, gains), FLOAT, [1])
        body.output("next_finished", ended, BOOL, [])
        next_width = self._next_width(body, width, draft, agreed, drafts)
        body.output("next_width", next_width, INT64, [])
        body.output("next_steps", body.op("Add", steps, body.constant(1)), INT64, [])
        kept = body.op("Less", offsets, accepted)
        new_positions = body.op("Where", kept, numbers, body.constant(_REJECTED))
        next_positions = body.op("Concat", positions, new_positions, axis=0)
        body.output("next_positions", next_positions, INT64, ["present"])
        self.output_caches(body, 1, present)
        return body

    def _draft(self, body: Graph, text: str, output: str, width: str, remaining: str) -> str:
        """The draft, int64 [drafted]: at most `width` tokens, and fewer than `remaining`.

        It is what followed an earlier occurrence of the last two tokens in source or output,
        preferably one with the same third-last token.
        """
        hay = body.op("Concat", text, output, axis=0)
        before = body.constant([_BEFORE_OUTPUT, _BEFORE_OUTPUT])
        padded = body.op("Concat", before, output, axis=0)
        needle = [
            _slice(body, padded, body.constant([-back]), body.constant([1 - back]), 0)
            if back > 1
            else _slice(body, padded, body.constant([-1]), _end(body), 0)
            for back in (1, 2, 3)
        ]
        matches = []
        for back, token in enumerate(needle):
            shifted = hay
            if back:
                front = body.constant([_BEFORE_TEXT] * back)
                moved = body.op("Concat", front, hay, axis=0)
                shifted = _slice(body, moved, body.constant([0]), body.constant([-back]), 0)
            matches.append(body.op("Cast", body.op("Equal", shifted, token), to=INT32))
        # At the beginning, the start token alone is enough.
        at_start = body.op("Equal", _length(body, output), body.constant([1]))
        second = body.op("Max", matches[1], body.op("Cast", at_start, to=INT32))
        deep = body.op("Add", second, body.op("Mul", second, matches[2]))
        score = body.op("Mul", matches[0], deep)
        # The haystack ends with the needle itself, which nothing follows.
        score = _slice(body, score, body.constant([0]), body.constant([-1]), 0)
        match = body.op("ArgMax", score, axis=0, keepdims=1)
        found = body.op("ReduceMax", score, keepdims=1)
        allowed = body.op("Min", width, body.op("Sub", remaining, body.constant(1)))
        no_match = body.op("Equal", found, body.op("Cast", body.constant([0]), to=INT32))
        count = body.op("Where", no_match, body.constant([0]), allowed)
        first = body.op("Add", match, body.constant([1]))
        draft = _slice(body, hay, first, body.op("Add", first, count), 0)
        # An end token is what the step after the other tokens chooses anyway.
        to_end = self._first(body, body.op("Cast", is_end_token(body, draft, self.shape), to=INT32))
        return _slice(body, draft, body.constant([0]), to_end, 0)

    def _accepted(self, body: Graph, draft: str, best: str) -> tuple[str, str, str]:
        """How many of `best` are accepted ([1]), whether eos is among them, how many drafts agree.

        `best[i]` is what greedy search chooses after the first i draft tokens; it is accepted if
        all of these agree with greedy search.
        """
        guessed = _slice(body, best, body.constant([0]), body.constant([-1]), 0)
        wrong = body.op("Cast", body.op("Not", body.op("Equal", draft, guessed)), to=INT32)
        agreed = self._first(body, wrong)
        is_end = is_end_token(body, best, self.shape)
        to_eos = self._first(body, body.op("Cast", is_end, to=INT32))
        ended = body.op("Not", body.op("Less", agreed, to_eos))
        accepted = body.op("Add", body.op("Min", agreed, to_eos), body.constant([1]))
        return accepted, body.op("Squeeze", ended, body.constant([0])), agreed

    @staticmethod
    def _first(body: Graph, flags: str) -> str:
        """The position of the first 1 in int32 [n], or n if there is none: int64 [1]."""
        closed = body.op("Concat", flags, body.op("Cast", body.constant([1]), to=INT32), axis=0)
        return body.op("ArgMax", closed, axis=0, keepdims=1)

    def _next_width(self, body: Graph, width: str, draft: str, agreed: str, drafts: str) -> str:
        """Twice the length if the whole draft agreed, else as long as it agreed.

        With a draft head, whose text goes on after an error, twice as long as it agreed.
        """
        drafted = _length(body, draft)
        doubled = body.op("Min", body.op("Add", width, width), drafts)
        grown = body.op("Mul", agreed, body.constant([self._growth]))
        shorter = body.op("Max", grown, body.constant([1]))
        all_agreed = body.op("Equal", agreed, drafted)
        changed = body.op("Where", all_agreed, doubled, body.op("Min", shorter, drafts))
        no_draft = body.op("Equal", drafted, body.constant([0]))
        return _scalar(body, body.op("Where", no_draft, width, changed))


def _slice(graph: Graph, value: str, start: str, end: str, axis: int) -> str:
    return graph.op("Slice", value, start, end, graph.constant([axis]))


def _end(graph: Graph) -> str:
    return graph.constant([np.iinfo(np.int64).max])


def _length(graph: Graph, vector: str) -> str:
    """The first dimension, int64 [1]."""
    return graph.op("Shape", vector, start=0, end=1)


def _scalar(graph: Graph, value: str) -> str:
    return graph.op("Squeeze", value, graph.constant([0]))


def _range(graph: Graph, count: str) -> str:
    return graph.op("Range", graph.constant(0), count, graph.constant(1))
