"""Base class of engines that expose single decoder steps; the search runs in numpy."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback, TokenIds, Vocabulary
from edge.runtime.engines.drafting import drafted_search
from edge.runtime.engines.logits import log_softmax
from edge.runtime.engines.matcher import Matcher
from edge.runtime.engines.search import DecoderState, beam_search, sample_search
from edge.runtime.options import GenerationOptions


class SteppingEngine(Engine):
    """An engine whose subclass implements `start` and sets `vocabulary`."""

    supports_constraints = True
    vocabulary: Vocabulary

    @classmethod
    def drafts_with(cls, quantization: str) -> bool:
        """See `Engine.drafts_with`."""
        return True

    @abc.abstractmethod
    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """Encode a batch of unpadded source ids, for a search."""

    def start_scoring(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """Encode a batch of unpadded source ids, for scores of any target.

        Differs from `start` where a shortlist restricts the search.
        """
        return self.start(input_ids)

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        self.check_options(options)
        state = self.start(input_ids)
        if matchers is None and len(input_ids) == 1 and options.drafts_from_input:
            return [[drafted_search(state, input_ids[0], options, self.vocabulary, on_token)]]
        search = beam_search if options.num_beams > 1 else sample_search
        return search(state, len(input_ids), options, self.vocabulary, on_token, matchers)

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """See `Engine.score`."""
        state = self.start_scoring(input_ids)
        length = max(len(row) for row in target_ids)
        decoder_ids = np.full((len(target_ids), length), self.vocabulary.pad, dtype=np.int64)
        for row, target in enumerate(target_ids):
            decoder_ids[row, : len(target)] = (self.vocabulary.start, *target[:-1])
        # Right padding needs no mask: earlier positions of a causal decoder never see it.
        log_probs = log_softmax(state.advance(decoder_ids))
        return [
            log_probs[row, np.arange(len(target)), np.asarray(target, dtype=np.int64)]
            for row, target in enumerate(target_ids)
        ]
