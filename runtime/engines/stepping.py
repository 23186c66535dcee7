"""The base of engines that expose one decoder step: the search itself runs here, in numpy."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback, TokenIds, Vocabulary
from edge.runtime.engines.search import beam_search, log_softmax, sample_search
from edge.runtime.options import GenerationOptions


class DecoderState(abc.ABC):
    """A batch that was encoded, with the decoder's cache of past keys and values."""

    @abc.abstractmethod
    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Append tokens [batch, n] (int64) and return logits [batch, n, vocab_size] (float32)."""

    @abc.abstractmethod
    def reorder(self, rows: np.ndarray) -> None:
        """Make row i of the batch what was row rows[i]; rows may repeat and be left out."""


class SteppingEngine(Engine):
    """An engine whose subclass implements `start` and sets `vocabulary`."""

    vocabulary: Vocabulary

    @abc.abstractmethod
    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """Encode a batch of unpadded source ids."""

    def start_scoring(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """Like `start`, for scores of any target: where searches are restricted, this is not."""
        return self.start(input_ids)

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
    ) -> list[list[Hypothesis]]:
        self.check_options(options)
        state = self.start(input_ids)
        search = beam_search if options.num_beams > 1 else sample_search
        return search(state, len(input_ids), options, self.vocabulary, on_token)

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        state = self.start_scoring(input_ids)
        length = max(len(row) for row in target_ids)
        decoder_ids = np.full((len(target_ids), length), self.vocabulary.pad, dtype=np.int64)
        for row, target in enumerate(target_ids):
            decoder_ids[row, : len(target)] = (self.vocabulary.start, *target[:-1])
        # Right padding needs no mask here: a causal decoder's earlier positions never see it.
        log_probs = log_softmax(state.advance(decoder_ids))
        return [
            log_probs[row, np.arange(len(target)), np.asarray(target, dtype=np.int64)]
            for row, target in enumerate(target_ids)
        ]
