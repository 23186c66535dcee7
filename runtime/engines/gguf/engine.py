"""The GGUF engine: llama.cpp's low-level binding, one encode per row, then token by token.

The high-level class of llama-cpp-python never calls `llama_encode`, so it can't run T5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import (
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_threads,
)
from edge.runtime.engines.drafting import drafted_search
from edge.runtime.engines.gguf.compatibility import check_model
from edge.runtime.engines.gguf.context import SCORE_CHUNK, LlamaContext, RowState
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.engines.logits import log_softmax, seed_of_copy
from edge.runtime.engines.matcher import Matcher
from edge.runtime.engines.search import DecoderState, sample_search
from edge.runtime.engines.stepping import SteppingEngine
from edge.runtime.errors import ArtifactError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.memory import free_memory

MODEL_NAME = "model.gguf"
_CACHE_BLOCK = 256  # llama.cpp rounds its cache up to multiples of this


class GgufEngine(SteppingEngine):
    """A GGUF file on the CPU. The rows of a batch run one after another.

    The rounding that remains in float32 is in llama.cpp's gelu, a float16 table.
    """

    format = "gguf"
    thread_safe = False
    supports_beams = False

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Check the file's header, then load it.

        Raises:
            ArtifactError: The file is damaged, does not match the manifest, or llama.cpp can't
                load it.
        """
        limits = artifact.manifest.limits
        path = artifact.path(MODEL_NAME)
        self.vocabulary = Vocabulary.of(artifact)
        self._threads = choose_threads(artifact, threads)
        max_output = -(-limits.max_new_tokens // _CACHE_BLOCK) * _CACHE_BLOCK
        shape = artifact.manifest.architecture
        positions = max(limits.max_input_tokens, max_output)
        check_model(read_header(path), shape, positions, path)
        # llama.cpp fills the cache with zeros: keys and values of all layers, in float32.
        needed = 2 * 4 * shape.num_decoder_layers * shape.inner_dim * max_output
        if needed > (free := free_memory()):
            raise ArtifactError(
                f"{path}: a cache for {max_output:,} tokens takes {needed >> 20:,} MiB and"
                f" {free >> 20:,} MiB are free; export it with a lower --max-new-tokens-limit"
            )
        self._context = LlamaContext(
            path,
            self.vocabulary,
            threads=self._threads,
            max_input=limits.max_input_tokens,
            max_output=max_output,
        )

    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start`; of one row, and the last state is the only one.

        Raises:
            InputTooLongError: The row is over the artifact's limit.
        """
        [ids] = input_ids
        self._context.encode(ids)
        return RowState(self._context)

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`. With a seed, a row's samples are the same in any batch.

        Raises:
            UnsupportedError: Beam search.
            InputTooLongError: A row over the artifact's limit.
        """
        self.check_options(options)
        self._context.reserve(options.max_new_tokens)
        return [
            self._generate_row(
                row, ids, options, on_token, None if matchers is None else matchers[row]
            )
            for row, ids in enumerate(input_ids)
        ]

    def _generate_row(
        self,
        row: int,
        ids: TokenIds,
        options: GenerationOptions,
        on_token: TokenCallback | None,
        matcher: Matcher | None,
    ) -> list[Hypothesis]:
        """All sequences of one row, encoded once."""
        state = self.start([ids])
        copies = options.num_return_sequences
        found: list[Hypothesis] = []
        for copy in range(copies):
            single = dataclasses.replace(
                options, num_return_sequences=1, seed=seed_of_copy(options.seed, copy)
            )

            def callback(_: int, token: int, index: int = row * copies + copy) -> bool:
                return on_token is not None and on_token(index, token)

            if copy:
                state = RowState(self._context)
            if matcher is None and options.drafts_from_input:
                return [drafted_search(state, ids, single, self.vocabulary, callback)]
            matchers = None if matcher is None else [matcher]
            found += sample_search(state, 1, single, self.vocabulary, callback, matchers)[0]
        return sorted(found, key=lambda hypothesis: -hypothesis.score)

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """See `Engine.score`.

        Raises:
            InputTooLongError: A source or target over the artifact's limits.
        """
        return [
            self._score_row(source, target)
            for source, target in zip(input_ids, target_ids, strict=True)
        ]

    def _score_row(self, source: TokenIds, target: TokenIds) -> np.ndarray:
        self._context.reserve(len(target))
        state = self.start([source])
        wanted = np.asarray(target, dtype=np.int64)
        decoder_ids = np.concatenate([[self.vocabulary.start], wanted[:-1]])
        scores = np.empty(len(wanted), dtype=np.float32)
        for first in range(0, len(wanted), SCORE_CHUNK):
            part = slice(first, first + SCORE_CHUNK)
            log_probs = log_softmax(state.advance(decoder_ids[None, part]))[0]
            scores[part] = log_probs[np.arange(len(log_probs)), wanted[part]]
        return scores

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def close(self) -> None:
        """See `Engine.close`."""
        self._context.close()
