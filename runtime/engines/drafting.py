"""Greedy search of one row that verifies drafts from its input, over a step-by-step decoder.

A rewrite copies most of its output from its input. The draft is what followed the last two
generated tokens in the source, or earlier in the output. One decoder step over it finds how many of
its tokens greedy search would choose, and one more token. The answer is that of plain greedy
search. `edge.export.onnx.speculative` builds the same search as a graph.

Sources: Leviathan et al. 2023 (arXiv:2211.17192) for drafting and verification; Saxena 2023,
"Prompt Lookup Decoding", for drafts from the prompt, here from the encoder's input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from edge.runtime.engines.base import Hypothesis, TokenCallback, TokenIds, Vocabulary
from edge.runtime.engines.generated_row import GeneratedRow
from edge.runtime.engines.logits import next_token
from edge.runtime.engines.search import DecoderState
from edge.runtime.options import GenerationOptions


class PromptLookup:
    """Drafts from the input and the output so far, as long as they lately agreed.

    Args:
        source: Token ids of the input.
        start: The decoder's start token; in front of the source, so that the first draft is the
            beginning of the source.
        longest: The longest draft.
    """

    def __init__(self, source: TokenIds, start: int, longest: int) -> None:
        self._text = np.array([start, *source], dtype=np.int64)
        self._longest = self._width = longest

    def draft(self, output: list[int], room: int, ends: Collection[int]) -> list[int]:
        """The tokens that may follow.

        Args:
            output: The tokens so far, start token first.
            room: Longest draft that the answer's length allows.
            ends: End tokens; a draft ends before them, as the step after it finds them anyway.
        """
        text = np.concatenate([self._text, output])
        # The text ends with the output's last tokens themselves, which nothing follows.
        match = text[:-1] == output[-1]
        if len(output) > 1:
            before = np.concatenate([[-1], text[:-2]]) == output[-2]
            match &= before
        if not match.any():
            return []
        if len(output) > 2:
            earlier = np.concatenate([[-1, -1], text[:-3]]) == output[-3]
            match = match & earlier if (match & earlier).any() else match
        first = int(match.argmax()) + 1
        found: list[int] = text[first : first + min(self._width, room)].tolist()
        to_end = next((place for place, token in enumerate(found) if token in ends), len(found))
        return found[:to_end]

    def observe(self, drafted: int, agreed: int) -> None:
        """Adapt the length: twice if the whole draft agreed, else as many tokens as agreed."""
        if drafted:
            width = 2 * self._width if agreed == drafted else max(agreed, 1)
            self._width = min(width, self._longest)


def drafted_search(
    state: DecoderState,
    source: TokenIds,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    on_token: TokenCallback | None = None,
) -> Hypothesis:
    """Greedy search of one row with drafts of up to `options.prompt_lookup_num_tokens` tokens.

    Args:
        state: The encoded row; used up by the search.
        source: Token ids of the input.
        options: Greedy search, with any penalties and without a constraint.
        vocabulary: Special ids, and ids that may be emitted.
        on_token: See `TokenCallback`; the row is 0.

    Returns:
        The hypothesis, with the number of its decoder steps.
    """
    row = GeneratedRow([vocabulary.start])
    lookup = PromptLookup(source, vocabulary.start, options.prompt_lookup_num_tokens)
    random = np.random.default_rng(options.seed)  # greedy search draws nothing
    steps = 0
    while not row.finish_reason and len(row.past) <= options.max_new_tokens:
        room = options.max_new_tokens - len(row.past)  # one token follows the draft
        draft = lookup.draft(row.past, room, vocabulary.ends)
        logits = state.advance(np.array([[row.past[-1], *draft]], dtype=np.int64))[0]
        steps += 1
        agreed = 0
        for place, scores in enumerate(logits):
            token = next_token(scores, row.past, options, vocabulary, random)
            row.append(token, scores)
            if token in vocabulary.ends:
                row.finish_reason = "eos"
            if on_token is not None and on_token(0, token) and not row.finish_reason:
                row.finish_reason = "stop"
            if row.finish_reason or place == len(draft) or token != draft[place]:
                break
            agreed += 1
        lookup.observe(len(draft), agreed)
        if agreed < len(draft):
            state.truncate(len(row.past) - 1)  # the last token is read by the next step
    found = row.hypothesis(vocabulary, options.length_penalty)
    return dataclasses.replace(found, steps=steps)
