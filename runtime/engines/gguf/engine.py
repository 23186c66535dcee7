"""The GGUF engine: llama.cpp's low-level binding, one encode per row, then token by token.

The high-level class of llama-cpp-python never calls `llama_encode`, so it can't run T5.
"""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import (
    Engine,
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_threads,
)
from edge.runtime.engines.boundary import check_logits, engine_errors
from edge.runtime.engines.gguf.compatibility import check_model
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.engines.gguf.library import clear_errors, last_error, llama_library, load_model
from edge.runtime.engines.logits import log_softmax, seed_of_copy
from edge.runtime.engines.matcher import Matcher
from edge.runtime.engines.search import DecoderState, sample_search
from edge.runtime.errors import ArtifactError, EdgeError, InputTooLongError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.memory import free_memory

MODEL_NAME = "model.gguf"
_CACHE_BLOCK = 256  # llama.cpp rounds its cache up to multiples of this
_FIRST_CACHE = 1024  # tokens; a longer answer gets a larger cache when it is asked for
_SCORE_CHUNK = 64  # positions scored at once: limits the memory of the logits


class GgufEngine(Engine):
    """A GGUF file on the CPU. The rows of a batch run one after another.

    For precision, the key-value cache is float32 and flash attention is off. The remaining rounding
    is in llama.cpp's gelu, a float16 table.
    """

    format = "gguf"
    thread_safe = False
    supports_beams = False
    supports_constraints = True

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Check the file's header, then load it.

        Raises:
            ArtifactError: The file is damaged, does not match the manifest, or llama.cpp can't
                load it.
        """
        limits = artifact.manifest.limits
        self._path = path = artifact.path(MODEL_NAME)
        self.vocabulary = Vocabulary.of(artifact)
        self._threads = choose_threads(artifact, threads)
        self._max_input = limits.max_input_tokens
        self._max_output = -(-limits.max_new_tokens // _CACHE_BLOCK) * _CACHE_BLOCK
        positions = max(self._max_input, self._max_output)
        shape = artifact.manifest.architecture
        check_model(read_header(path), shape, positions, path)
        self._check_cache(shape.num_decoder_layers * shape.inner_dim)
        self._library = llama_library()
        self._model = model = load_model(path)
        self._free: weakref.finalize[..., Any] = weakref.finalize(
            self, self._library.llama_model_free, model
        )
        self._check_loaded(model, path)
        self._context: object = None
        self._open_context(min(self._max_output, max(_FIRST_CACHE, self._max_input)))

    def _check_cache(self, width: int) -> None:
        """Check that the key-value cache, which llama.cpp fills with zeros, fits into memory.

        Args:
            width: Keys of all decoder layers for one token.
        """
        needed, free = 2 * 4 * width * self._max_output, free_memory()
        if needed > free:
            raise ArtifactError(
                f"{self._path}: a cache for {self._max_output:,} tokens takes {needed >> 20:,} MiB"
                f" and {free >> 20:,} MiB are free; export it with a lower --max-new-tokens-limit"
            )

    def _check_loaded(self, model: object, path: Path) -> None:
        """Check that llama.cpp read the same vocabulary as the manifest states."""
        library = self._library
        size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        start = library.llama_model_decoder_start_token(model)
        if size != self.vocabulary.size or start != self.vocabulary.start:
            raise ArtifactError(
                f"{path}: llama.cpp read {size} tokens and start token {start}, the manifest says"
                f" {self.vocabulary.size} and {self.vocabulary.start}; export it again"
            )

    def _open_context(self, length: int) -> None:
        """Replace the context, if there is one, by one with a cache for `length` tokens."""
        library = self._library
        self._free.detach()
        self._free = weakref.finalize(self, library.llama_model_free, self._model)
        if self._context:
            library.llama_free(self._context)
        self._context = self._new_context(length)
        self._cache_length = length
        self._free.detach()
        self._free = weakref.finalize(self, _free, library, self._context, self._model)
        self._memory = library.llama_get_memory(self._context)

    def _new_context(self, length: int) -> object:
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx = length
        # The encoder needs its whole input in one batch.
        params.n_batch = params.n_ubatch = max(self._max_input, _SCORE_CHUNK)
        params.n_seq_max = 1
        params.n_outputs_max_per_seq = 0  # no limit: scoring needs every position
        params.n_threads = params.n_threads_batch = self._threads
        params.type_k = params.type_v = library.GGML_TYPE_F32
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.offload_kqv = params.op_offload = False
        params.no_perf = True
        clear_errors()
        context = library.llama_init_from_model(self._model, params)
        if not context:
            self._free()
            reason = last_error("no reason given")
            raise ArtifactError(f"{self._path}: llama.cpp can't run it ({reason})")
        return context

    # -- Engine ----------------------------------------------------------------------------------

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
        self._reserve(options.max_new_tokens)
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
        self._encode(ids)
        copies = options.num_return_sequences
        found: list[Hypothesis] = []
        for copy in range(copies):
            single = dataclasses.replace(
                options, num_return_sequences=1, seed=seed_of_copy(options.seed, copy)
            )

            def callback(_: int, token: int, index: int = row * copies + copy) -> bool:
                return on_token is not None and on_token(index, token)

            state = _RowState(self)
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
        self._reserve(len(target))
        self._encode(source)
        state = _RowState(self)
        wanted = np.asarray(target, dtype=np.int64)
        decoder_ids = np.concatenate([[self.vocabulary.start], wanted[:-1]])
        scores = np.empty(len(wanted), dtype=np.float32)
        for first in range(0, len(wanted), _SCORE_CHUNK):
            part = slice(first, first + _SCORE_CHUNK)
            log_probs = log_softmax(state.advance(decoder_ids[None, part]))[0]
            scores[part] = log_probs[np.arange(len(log_probs)), wanted[part]]
        return scores

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def close(self) -> None:
        """See `Engine.close`."""
        self._free()

    # -- llama.cpp -------------------------------------------------------------------------------

    def _encode(self, ids: TokenIds) -> None:
        """Encode one row; llama.cpp keeps the result for the decoder."""
        if len(ids) > self._max_input:
            raise InputTooLongError(
                f"the input has {len(ids)} tokens, this artifact takes {self._max_input}"
            )
        self._run(self._library.llama_encode, np.array(ids, dtype=np.int32), all_logits=False)

    def _check_open(self) -> None:
        if not self._free.alive:
            raise EdgeError("the engine is closed")

    def _reserve(self, length: int) -> None:
        """Make sure that the cache has room for an output of `length` tokens."""
        self._check_open()
        if length > self._max_output:
            raise InputTooLongError(
                f"an output of {length} tokens is longer than this artifact's limit of"
                f" {self._max_output}; export it again with a higher --max-new-tokens-limit"
            )
        if length > self._cache_length:
            self._open_context(min(self._max_output, max(2 * self._cache_length, length)))

    def _clear(self) -> None:
        """Empty the decoder's cache."""
        self._library.llama_memory_clear(self._memory, False)

    def _decode(self, ids: np.ndarray) -> np.ndarray:
        """Append ids [n] (int32); returns logits [n, vocab_size], valid until the next call."""
        self._run(self._library.llama_decode, ids, all_logits=True)
        size = self.vocabulary.size
        with engine_errors(self._path, "llama.cpp"):
            pointer = self._library.llama_get_logits(self._context)
            logits = np.ctypeslib.as_array(pointer, shape=(len(ids), size))
        check_logits(logits, (len(ids), size), self._path)
        return logits

    def _run(self, function: Callable[..., int], ids: np.ndarray, *, all_logits: bool) -> None:
        """Call llama_encode or llama_decode; `all_logits` requests the logits of all positions.

        The batch's null fields mean: positions continue from the cache, and the sequence is 0.
        """
        self._check_open()
        flags = np.ones(len(ids), dtype=np.int8)
        batch = self._library.llama_batch()
        batch.n_tokens = len(ids)
        batch.token = ids.ctypes.data_as(ctypes.POINTER(self._library.llama_token))
        if all_logits:
            batch.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        clear_errors()
        status = function(self._context, batch)
        if status != 0:
            reason = last_error(f"status {status}")
            raise EdgeError(f"{self._path}: llama.cpp failed to run it ({reason})")


class _RowState(DecoderState):
    """The decoder state of the row encoded last; only one exists at a time."""

    def __init__(self, engine: GgufEngine) -> None:
        self._engine = engine
        engine._clear()

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Logits [1, n, vocab_size] of tokens [1, n]; valid until the next call."""
        return self._engine._decode(np.ascontiguousarray(tokens[0], dtype=np.int32))[None]

    def reorder(self, rows: np.ndarray) -> None:
        if rows.tolist() != [0]:
            raise NotImplementedError("a GGUF model decodes one sequence at a time")


def _free(library: ModuleType, context: object, model: object) -> None:
    library.llama_free(context)
    library.llama_model_free(model)
