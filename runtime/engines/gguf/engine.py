"""GGUF through llama.cpp's low-level binding: encode once per row, then decode token by token.

The high-level class of llama-cpp-python never calls `llama_encode`, so T5 does not work through it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Sequence
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
from edge.runtime.engines.gguf.compatibility import check_model
from edge.runtime.engines.gguf.header import read_header
from edge.runtime.engines.gguf.library import forget_errors, last_error, llama_library
from edge.runtime.engines.logits import log_softmax
from edge.runtime.engines.search import DecoderState, sample_search
from edge.runtime.errors import ArtifactError, EdgeError, InputTooLongError
from edge.runtime.options import GenerationOptions

MODEL_NAME = "model.gguf"
_CACHE_BLOCK = 256  # llama.cpp rounds its cache up to this many positions
_SCORE_CHUNK = 64  # positions scored at once: bounds the logits that are held


class GgufEngine(Engine):
    """A GGUF file on the CPU. The rows of a batch run one after another, each like a batch of one.

    The cache of keys and values is float32 and flash attention is off, for the sake of precision;
    what is left of rounding is llama.cpp's gelu, which is a table in float16.
    """

    format = "gguf"
    thread_safe = False
    supports_beams = False

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Check the file's header, then load it.

        Raises:
            ArtifactError: the file is damaged, does not fit the manifest, or llama.cpp refuses it.
        """
        limits = artifact.manifest.limits
        path = artifact.path(MODEL_NAME)
        self.vocabulary = Vocabulary.of(artifact)
        self._threads = choose_threads(artifact, threads)
        self._longest_input = limits.max_input_tokens
        self._longest_output = -(-limits.max_new_tokens // _CACHE_BLOCK) * _CACHE_BLOCK
        positions = max(self._longest_input, self._longest_output)
        check_model(read_header(path), artifact.manifest.architecture, positions, path)
        self._library = llama_library()
        model = _load_model(self._library, path)
        self._free: weakref.finalize[..., Any] = weakref.finalize(
            self, self._library.llama_model_free, model
        )
        self._check_loaded(model, path)
        self._context = self._new_context(model, path)
        self._free.detach()
        self._free = weakref.finalize(self, _free, self._library, self._context, model)
        self._memory = self._library.llama_get_memory(self._context)

    def _check_loaded(self, model: object, path: Path) -> None:
        """llama.cpp must have understood the file as the manifest does."""
        library = self._library
        size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        start = library.llama_model_decoder_start_token(model)
        if size != self.vocabulary.size or start != self.vocabulary.start:
            raise ArtifactError(
                f"{path}: llama.cpp reads {size} tokens and start token {start}, the manifest says"
                f" {self.vocabulary.size} and {self.vocabulary.start}; export it again"
            )

    def _new_context(self, model: object, path: Path) -> object:
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx = self._longest_output
        # The encoder takes its input in one piece.
        params.n_batch = params.n_ubatch = max(self._longest_input, _SCORE_CHUNK)
        params.n_seq_max = 1
        params.n_outputs_max_per_seq = 0  # as many as a batch holds: scoring wants every position
        params.n_threads = params.n_threads_batch = self._threads
        params.type_k = params.type_v = library.GGML_TYPE_F32
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.offload_kqv = params.op_offload = False
        params.no_perf = True
        forget_errors()
        context = library.llama_init_from_model(model, params)
        if not context:
            self._free()
            raise ArtifactError(f"{path}: llama.cpp can't run it ({last_error('no reason given')})")
        return context

    # -- Engine ----------------------------------------------------------------------------------

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`. A seed makes a row's samples the same in any batch.

        Raises:
            UnsupportedError: beams.
            InputTooLongError: a row over the artifact's limit.
        """
        self.check_options(options)
        self._check_output(options.max_new_tokens)
        return [
            self._generate_row(row, ids, options, on_token) for row, ids in enumerate(input_ids)
        ]

    def _generate_row(
        self, row: int, ids: TokenIds, options: GenerationOptions, on_token: TokenCallback | None
    ) -> list[Hypothesis]:
        """All sequences of one row; the encoder's output serves each of them."""
        self._encode(ids)
        copies = options.num_return_sequences
        found: list[Hypothesis] = []
        for copy in range(copies):
            single = dataclasses.replace(
                options, num_return_sequences=1, seed=_seed_of_copy(options.seed, copy)
            )

            def callback(_: int, token: int, index: int = row * copies + copy) -> bool:
                return on_token is not None and on_token(index, token)

            state = _RowState(self)
            found += sample_search(state, 1, single, self.vocabulary, callback)[0]
        return sorted(found, key=lambda hypothesis: -hypothesis.score)

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """See `Engine.score`.

        Raises:
            InputTooLongError: a source or a target over the artifact's limits.
        """
        return [
            self._score_row(source, target)
            for source, target in zip(input_ids, target_ids, strict=True)
        ]

    def _score_row(self, source: TokenIds, target: TokenIds) -> np.ndarray:
        self._check_output(len(target))
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
        return self._threads

    def close(self) -> None:
        self._free()

    # -- llama.cpp -------------------------------------------------------------------------------

    def _encode(self, ids: TokenIds) -> None:
        """Encode one row; the library keeps the result for the decoder."""
        if len(ids) > self._longest_input:
            raise InputTooLongError(
                f"the input has {len(ids)} tokens, this artifact takes {self._longest_input}"
            )
        self._run(self._library.llama_encode, np.array(ids, dtype=np.int32), every=False)

    def _check_output(self, length: int) -> None:
        if length > self._longest_output:
            raise InputTooLongError(
                f"an output of {length} tokens is longer than this artifact's"
                f" {self._longest_output}; export it with a higher limit of new tokens"
            )

    def _clear(self) -> None:
        """Empty the decoder's cache."""
        self._library.llama_memory_clear(self._memory, False)

    def _decode(self, ids: np.ndarray) -> np.ndarray:
        """Append ids [n] (int32) and return logits [n, vocab_size], a view that the next call
        overwrites."""
        self._run(self._library.llama_decode, ids, every=True)
        pointer = self._library.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(len(ids), self.vocabulary.size))

    def _run(self, function: object, ids: np.ndarray, *, every: bool) -> None:
        """Call llama_encode or llama_decode; `every` asks for the logits of all positions.

        Positions follow on from the cache and the sequence is 0, as the fields left null say.
        """
        if not self._free.alive:
            raise EdgeError("this model is closed")
        flags = np.ones(len(ids), dtype=np.int8)
        batch = self._library.llama_batch()
        batch.n_tokens = len(ids)
        batch.token = ids.ctypes.data_as(ctypes.POINTER(self._library.llama_token))
        if every:
            batch.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        forget_errors()
        status = function(self._context, batch)  # type: ignore[operator]
        if status != 0:
            raise EdgeError(f"llama.cpp failed ({last_error(f'status {status}')})")


class _RowState(DecoderState):
    """The decoder's state of the row that was encoded last. There is only one at a time."""

    def __init__(self, engine: GgufEngine) -> None:
        self._engine = engine
        engine._clear()

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Logits [1, n, vocab_size] of tokens [1, n]; valid until the next call."""
        return self._engine._decode(np.ascontiguousarray(tokens[0], dtype=np.int32))[None]

    def reorder(self, rows: np.ndarray) -> None:
        if rows.tolist() != [0]:
            raise NotImplementedError("a row of a GGUF model has one sequence at a time")


def _load_model(library: ModuleType, path: Path) -> object:
    params = library.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = library.LLAMA_LOAD_MODE_MMAP
    forget_errors()
    model = library.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        reason = last_error("no reason given")
        raise ArtifactError(f"{path}: llama.cpp can't load it ({reason}); export it again")
    return model


def _free(library: ModuleType, context: object, model: object) -> None:
    library.llama_free(context)
    library.llama_model_free(model)


def _seed_of_copy(seed: int | None, copy: int) -> int | None:
    """A seed of its own for each of a row's sequences; the first keeps the caller's."""
    if seed is None or copy == 0:
        return seed
    return int(np.random.SeedSequence([seed, copy]).generate_state(1)[0])
