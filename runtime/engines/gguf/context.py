"""A GGUF model in llama.cpp: one encoded row, the decoder's cache, and the calls of the library."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge.runtime.engines.base import TokenIds, Vocabulary
from edge.runtime.engines.boundary import check_logits, engine_errors
from edge.runtime.engines.gguf.library import clear_errors, last_error, llama_library, load_model
from edge.runtime.engines.search import DecoderState
from edge.runtime.errors import ArtifactError, EdgeError, InputTooLongError

_FIRST_CACHE = 1024  # tokens; a longer answer gets a larger cache when it is asked for
SCORE_CHUNK = 64  # positions scored at once: limits the memory of the logits


class LlamaContext:
    """A loaded model with a cache for one sequence, which grows with the answers asked for.

    For precision, the key-value cache is float32 and flash attention is off.

    Args:
        path: The GGUF file.
        vocabulary: Of the manifest, which must agree with the file's.
        threads: Number of threads.
        max_input: Longest input in tokens.
        max_output: Longest output in tokens.

    Raises:
        ArtifactError: llama.cpp can't load or run the file, or reads another vocabulary.
    """

    def __init__(
        self, path: Path, vocabulary: Vocabulary, *, threads: int, max_input: int, max_output: int
    ) -> None:
        self._path = path
        self._vocabulary = vocabulary
        self._threads = threads
        self._max_input = max_input
        self._max_output = max_output
        self._library = llama_library()
        self._model = model = load_model(path)
        self._free: weakref.finalize[..., Any] = weakref.finalize(
            self, self._library.llama_model_free, model
        )
        self._check_vocabulary()
        self._context: object = None
        self._open(min(max_output, max(_FIRST_CACHE, max_input)))

    def _check_vocabulary(self) -> None:
        """Check that llama.cpp read the same vocabulary as the manifest states."""
        library, wanted = self._library, self._vocabulary
        size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        start = library.llama_model_decoder_start_token(self._model)
        if size != wanted.size or start != wanted.start:
            raise ArtifactError(
                f"{self._path}: llama.cpp read {size} tokens and start token {start}, the manifest"
                f" says {wanted.size} and {wanted.start}; export it again"
            )

    def _open(self, length: int) -> None:
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
        params.n_batch = params.n_ubatch = max(self._max_input, SCORE_CHUNK)
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
            self.close()
            reason = last_error("no reason given")
            raise ArtifactError(f"{self._path}: llama.cpp can't run it ({reason})")
        return context

    def close(self) -> None:
        """Free the model. Closing twice is harmless."""
        self._free()

    def _check_open(self) -> None:
        if not self._free.alive:
            raise EdgeError("the engine is closed")

    def reserve(self, length: int) -> None:
        """Make sure that the cache has room for an output of `length` tokens.

        Raises:
            InputTooLongError: It is over the artifact's limit.
        """
        self._check_open()
        if length > self._max_output:
            raise InputTooLongError(
                f"an output of {length} tokens is longer than this artifact's limit of"
                f" {self._max_output}; export it again with a higher --max-new-tokens-limit"
            )
        if length > self._cache_length:
            self._open(min(self._max_output, max(2 * self._cache_length, length)))

    def encode(self, ids: TokenIds) -> None:
        """Encode one row; llama.cpp keeps the result for the decoder.

        Raises:
            InputTooLongError: It is over the artifact's limit.
        """
        if len(ids) > self._max_input:
            raise InputTooLongError(
                f"the input has {len(ids)} tokens, this artifact takes {self._max_input}"
            )
        self._run(self._library.llama_encode, np.array(ids, dtype=np.int32), all_logits=False)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Append ids [n] (int32); returns logits [n, vocab_size], valid until the next call."""
        self._run(self._library.llama_decode, ids, all_logits=True)
        size = self._vocabulary.size
        with engine_errors(self._path, "llama.cpp"):
            pointer = self._library.llama_get_logits(self._context)
            logits = np.ctypeslib.as_array(pointer, shape=(len(ids), size))
        check_logits(logits, (len(ids), size), self._path)
        return logits

    def clear(self) -> None:
        """Empty the decoder's cache."""
        self._library.llama_memory_clear(self._memory, False)

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` tokens from the decoder's cache."""
        if not self._library.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise EdgeError(f"{self._path}: llama.cpp can't drop tokens from its cache")

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


class RowState(DecoderState):
    """The decoder state of the row encoded last; only one exists at a time."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        context.clear()

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Logits [1, n, vocab_size] of tokens [1, n]; valid until the next call."""
        return self._context.decode(np.ascontiguousarray(tokens[0], dtype=np.int32))[None]

    def reorder(self, rows: np.ndarray) -> None:
        """Keep the row."""
        if rows.tolist() != [0]:
            raise NotImplementedError("a GGUF model decodes one sequence at a time")

    def truncate(self, length: int) -> None:
        """See `DecoderState.truncate`."""
        self._context.truncate(length)


def _free(library: ModuleType, context: object, model: object) -> None:
    library.llama_free(context)
    library.llama_model_free(model)
