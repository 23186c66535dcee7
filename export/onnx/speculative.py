"""Greedy search that drafts from the input and checks several tokens in one decoder step.

Query rewriting copies most of its output from its input. The tokens that followed the last two
generated ones in the source (or earlier in the output) are a guess at what comes next; one decoder
step over several rows tells how many of them plain greedy search would have taken, and gives one
token more. What comes out is what plain greedy search gives; only the number of steps differs.

Sources: Leviathan et al. 2023 (arXiv:2211.17192) for drafting and checking; Saxena 2023, "Prompt
Lookup Decoding", for drafts from the prompt, here from the encoder's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.export.onnx.graph import Graph
from edge.export.onnx.greedy import BOOL, Choice, Search
from edge.export.onnx.lm_head import search_head
from edge.export.onnx.precision import Precision
from edge.export.onnx.stacks import FLOAT, INT32, INT64, DecoderEmitter, EncoderEmitter
from edge.export.source import SourceModel

# Ids that no token has: what stands before the first token matches nothing, not even itself.
_BEFORE_OUTPUT, _BEFORE_TEXT = -1, -2
# The place of a draft that was wrong: after every query's.
_NOWHERE = 1 << 40


def emit_speculative(
    graph: Graph,
    source: SourceModel,
    encoder: Precision,
    decoder: Precision,
    shortlist: Sequence[int] | None = None,
) -> None:
    """Fill `graph` with the search, for one input at a time; `shortlist` as in `emit_greedy`.

    Inputs as those of `emit_greedy` with a batch of 1, and draft_tokens int64 scalar, the longest
    draft. Outputs: tokens int64 [1, new tokens] with eos; log_probs float32 [1]; finished bool [1];
    steps int64 scalar, the decoder steps taken.
    """
    ids = graph.input("input_ids", INT64, [1, "source"])
    mask = graph.input("attention_mask", INT64, [1, "source"])
    longest = graph.input("max_new_tokens", INT64, [])
    shortest = graph.input("min_new_tokens", INT64, [])
    drafts = graph.input("draft_tokens", INT64, [])
    cross = EncoderEmitter(graph, source, encoder).emit(ids, mask)
    head = search_head(graph, source, decoder, shortlist, ids, mask)
    search = _SpeculativeSearch(
        graph, source, decoder, head, cross, graph.op("Cast", mask, to=INT32)
    )
    output, log_probs, finished, steps = search.emit(ids, longest, shortest, drafts)
    graph.output("tokens", output, INT64, [1, "new"])
    graph.output("log_probs", log_probs, FLOAT, [1])
    graph.output("finished", finished, BOOL, [1])
    graph.output("steps", steps, INT64, [])


class _SpeculativeSearch(Search):
    """Loop state: output (start token first), log_probs, finished, draft width, steps, caches and
    the places in the output that their keys stand for.

    A draft that was wrong stays in the caches, at a place that is after every query: hiding it
    costs nothing, cutting it out would copy all caches at every step.
    """

    def emit(self, ids: str, longest: str, shortest: str, drafts: str) -> list[str]:
        graph = self.graph
        start = graph.constant([self.shape.decoder_start_token_id])
        # The start token in front of the source: at first, the source's beginning is the draft.
        text = graph.op("Concat", start, graph.op("Squeeze", ids, graph.constant([0])), axis=0)
        one = graph.constant([1])
        dims = graph.constant([1, self.shape.num_heads, 0, self.shape.d_kv])
        empty = graph.op("Expand", graph.constant(0.0, np.float32), dims)
        state = [
            graph.op("Identity", start),
            graph.op("Expand", graph.constant(0.0, np.float32), one),
            graph.op("Cast", graph.constant(0), to=BOOL),
            graph.op("Identity", drafts),
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
        places = body.input("step_places", INT64, ["past"])
        past = self.caches(body, 1)
        have = body.op("Sub", _length(body, output), body.constant([1]))  # new tokens so far, [1]
        draft = self._draft(body, text, output, width, body.op("Sub", longest, have))
        last = _slice(body, output, body.constant([-1]), _end(body), 0)
        tokens = body.op("Unsqueeze", body.op("Concat", last, draft, axis=0), body.constant([0]))
        emitter = DecoderEmitter(body, self.source, self.precision)
        offsets = _range(body, _scalar(body, body.op("Shape", tokens, start=1, end=2)))
        numbers = body.op("Add", have, offsets)  # of the new tokens before each row's
        bias = emitter.bias_between(numbers, body.op("Concat", places, numbers, axis=0))
        logits, present = emitter.emit(tokens, self.mask, past, self.cross, bias, self.head)
        chosen = Choice(body, self.head).emit(logits, numbers, shortest)
        best, gained = (body.op("Squeeze", value, body.constant([0])) for value in chosen)
        taken, ended, agreed = self._taken(body, draft, best)
        fresh = _slice(body, best, body.constant([0]), taken, 0)
        gains = body.op("ReduceSum", _slice(body, gained, body.constant([0]), taken, 0), keepdims=1)
        longer = body.op("Concat", output, fresh, axis=0)
        room = body.op("Less", _scalar(body, _length(body, longer)), self._plus_one(body, longest))
        body.output("next_condition", body.op("And", body.op("Not", ended), room), BOOL, [])
        body.output("next_output", longer, INT64, ["longer"])
        body.output("next_log_probs", body.op("Add", log_probs, gains), FLOAT, [1])
        body.output("next_finished", ended, BOOL, [])
        next_width = self._next_width(body, width, draft, agreed, drafts)
        body.output("next_width", next_width, INT64, [])
        body.output("next_steps", body.op("Add", steps, body.constant(1)), INT64, [])
        right = body.op("Less", offsets, taken)
        fresh_places = body.op("Where", right, numbers, body.constant(_NOWHERE))
        next_places = body.op("Concat", places, fresh_places, axis=0)
        body.output("next_places", next_places, INT64, ["present"])
        self.pass_on(body, 1, present)
        return body

    @staticmethod
    def _plus_one(body: Graph, value: str) -> str:
        return body.op("Add", value, body.constant(1))

    def _draft(self, body: Graph, text: str, output: str, width: str, room: str) -> str:
        """What followed the last two tokens where they, best with the third-last, stand in source
        or output; at most `width` tokens, and one less than there is `room` for. int64 [drafted].
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
        # The start token alone is enough at the beginning, where there is nothing before it.
        at_start = body.op("Equal", _length(body, output), body.constant([1]))
        second = body.op("Max", matches[1], body.op("Cast", at_start, to=INT32))
        deep = body.op("Add", second, body.op("Mul", second, matches[2]))
        score = body.op("Mul", matches[0], deep)
        # The haystack's last token is the needle's own: nothing follows it.
        score = _slice(body, score, body.constant([0]), body.constant([-1]), 0)
        place = body.op("ArgMax", score, axis=0, keepdims=1)
        found = body.op("ReduceMax", score, keepdims=1)
        allowed = body.op("Min", width, body.op("Sub", room, body.constant(1)))
        nothing = body.op("Equal", found, body.op("Cast", body.constant([0]), to=INT32))
        count = body.op("Where", nothing, body.constant([0]), allowed)
        first = body.op("Add", place, body.constant([1]))
        return _slice(body, hay, first, body.op("Add", first, count), 0)

    def _taken(self, body: Graph, draft: str, best: str) -> tuple[str, str, str]:
        """How many of `best` stand ([1]), whether eos is among them, how many drafts were right.

        `best[i]` is what greedy search takes after the drafts before i; it stands as long as all of
        those drafts were right.
        """
        guessed = _slice(body, best, body.constant([0]), body.constant([-1]), 0)
        wrong = body.op("Cast", body.op("Not", body.op("Equal", draft, guessed)), to=INT32)
        agreed = self._first(body, wrong)
        is_eos = body.op("Equal", best, body.constant(self.shape.eos_token_id))
        to_eos = self._first(body, body.op("Cast", is_eos, to=INT32))
        ended = body.op("Not", body.op("Less", agreed, to_eos))
        taken = body.op("Add", body.op("Min", agreed, to_eos), body.constant([1]))
        return taken, body.op("Squeeze", ended, body.constant([0])), agreed

    @staticmethod
    def _first(body: Graph, flags: str) -> str:
        """Place of the first 1 in int32 [n], or n where there is none: int64 [1]."""
        closed = body.op("Concat", flags, body.op("Cast", body.constant([1]), to=INT32), axis=0)
        return body.op("ArgMax", closed, axis=0, keepdims=1)

    def _next_width(self, body: Graph, width: str, draft: str, agreed: str, drafts: str) -> str:
        """Twice as long after a draft that was right throughout, else as long as it was right."""
        drafted = _length(body, draft)
        doubled = body.op("Min", body.op("Add", width, width), drafts)
        shorter = body.op("Max", agreed, body.constant([1]))
        right = body.op("Equal", agreed, drafted)
        changed = body.op("Where", right, doubled, body.op("Min", shorter, drafts))
        nothing = body.op("Equal", drafted, body.constant([0]))
        return _scalar(body, body.op("Where", nothing, width, changed))


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
