"""Baselines CTranslate2 and llama.cpp, as their packages ship them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from .spec import Generate, Spec


def convert_ctranslate2(spec: Spec) -> None:
    """Convert the model to int8 with CTranslate2's converter."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(spec.model)).convert(str(spec.cache), quantization="int8")


def load_ctranslate2(spec: Spec) -> Generate:
    """Load with CTranslate2's `Translator`."""
    import ctranslate2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(spec.model / "tokenizer.json"))
    translator = ctranslate2.Translator(
        str(spec.cache), device="cpu", inter_threads=1, intra_threads=spec.threads
    )

    def generate(rows: list[list[int]], new_tokens: int) -> list[list[str]]:
        answers = translator.translate_batch(
            [[tokenizer.id_to_token(token) for token in row] for row in rows],
            beam_size=1,
            min_decoding_length=new_tokens,
            max_decoding_length=new_tokens,
        )
        return [answer.hypotheses[0] for answer in answers]

    return generate


def write_gguf(quantization: str) -> Callable[[Spec], None]:
    """Write GGUF with edge (llama.cpp's package has no converter); llama.cpp quantizes it."""

    def prepare(spec: Spec) -> None:
        from edge.export.gguf.exporter import GgufExporter
        from edge.export.source import SourceModel

        spec.cache.mkdir()
        GgufExporter().write(SourceModel.open(spec.model), quantization, spec.cache)

    return prepare


def load_llama(spec: Spec) -> Generate:
    """Load with the low-level binding in its default settings; the `Llama` class can't run T5.

    Several sources are answered one by one: a context holds the encoder's output of one source.
    """
    import numpy as np
    from llama_cpp import llama_cpp as library

    library.llama_backend_init()
    settings = library.llama_model_default_params()
    model = library.llama_model_load_from_file(str(spec.cache / "model.gguf").encode(), settings)
    params = library.llama_context_default_params()
    params.n_threads = params.n_threads_batch = spec.threads
    params.no_perf = True
    context = library.llama_init_from_model(model, params)
    vocabulary = library.llama_model_get_vocab(model)
    size, eos = library.llama_vocab_n_tokens(vocabulary), library.llama_vocab_eos(vocabulary)
    start = library.llama_model_decoder_start_token(model)

    def run(function: Any, tokens: list[int]) -> None:
        array = (library.llama_token * len(tokens))(*tokens)  # not copied by the call
        if status := function(context, library.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError(f"llama.cpp returned {status}")

    def answer(input_ids: list[int], new_tokens: int) -> list[int]:
        library.llama_memory_clear(library.llama_get_memory(context), False)
        run(library.llama_encode, input_ids)
        found: list[int] = []
        token = start
        while len(found) < new_tokens:
            run(library.llama_decode, [token])
            pointer = library.llama_get_logits_ith(context, -1)
            logits = np.ctypeslib.as_array(ctypes.cast(pointer, _FLOATS), shape=(size,))
            logits[eos] = -np.inf  # the answer must have exactly `new_tokens`
            token = int(logits.argmax())
            found.append(token)
        return found

    return lambda rows, new_tokens: [answer(row, new_tokens) for row in rows]


_FLOATS = ctypes.POINTER(ctypes.c_float)
