"""Checks of a GGUF header against the artifact's manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.buckets import inside_table
from edge.runtime.engines.gguf.header import (
    CHARSMAP,
    SCORES,
    TOKEN_TYPES,
    TOKENS,
    ArrayInfo,
    GgufHeader,
)
from edge.runtime.engines.gguf.tensors import check_tensors
from edge.runtime.errors import ArtifactError

ARCHITECTURE = "t5"
# Written by the exporter: the longest input or output for which the position bias is exact.
POSITION_LIMIT = "edge.position_limit"

_MAX_CONTEXT = 1 << 20  # tokens
# Known keys of the model and the tokenizer, with the type of their value; llama.cpp could abort on
# others. The values are checked below.
_MODEL_KEYS: dict[str, type] = {
    "attention.head_count": int,
    "attention.key_length": int,
    "attention.layer_norm_epsilon": float,
    "attention.layer_norm_rms_epsilon": float,
    "attention.relative_buckets_count": int,
    "attention.value_length": int,
    "block_count": int,
    "context_length": int,
    "decoder_block_count": int,
    "decoder_start_token_id": int,
    "embedding_length": int,
    "feed_forward_length": int,
    "vocab_size": int,
}
_TOKENIZER_KEYS: dict[str, type] = {
    "add_bos_token": bool,
    "add_eos_token": bool,
    "add_space_prefix": bool,
    "eos_token_id": int,
    "model": str,
    "padding_token_id": int,
    "pre": str,
    "precompiled_charsmap": ArrayInfo,
    "remove_extra_whitespaces": bool,
    "scores": ArrayInfo,
    "token_type": ArrayInfo,
    "tokens": ArrayInfo,
    "unknown_token_id": int,
}
_KEYS = {f"{ARCHITECTURE}.{name}": kind for name, kind in _MODEL_KEYS.items()} | {
    f"tokenizer.ggml.{name}": kind for name, kind in _TOKENIZER_KEYS.items()
}
# Array → allowed types of its values: UINT8, INT8, INT32, FLOAT32, STRING.
_ARRAY_TYPES = {TOKENS: (8,), SCORES: (6,), TOKEN_TYPES: (5,), CHARSMAP: (0, 1)}


def check_model(header: GgufHeader, shape: Architecture, positions: int, path: str | Path) -> None:
    """Check a header against the manifest.

    Args:
        header: The file's header.
        shape: The manifest's architecture.
        positions: The longest input or output that the artifact allows, in tokens.
        path: The file, for error messages.

    Raises:
        ArtifactError: Another architecture or shape, an unknown key, or a position bias table that
            is too short.
    """
    data = header.metadata
    if data.get("general.architecture") != ARCHITECTURE:
        raise ArtifactError(
            f"{path}: the architecture is {data.get('general.architecture')!r:.100}, not 't5'"
        )
    _check_keys(data, path)
    _check_shape(data, shape, path)
    _check_vocabulary(data, shape, path)
    buckets = data.get("t5.attention.relative_buckets_count")
    limit = data.get(POSITION_LIMIT, positions)
    if type(buckets) is not int or not 1 <= buckets <= 1 << 20 or type(limit) is not int:
        raise ArtifactError(f"{path}: the relative position buckets are missing or malformed")
    # One more than the longest distance: llama.cpp also looks up the cache's empty cells.
    if positions > limit or not inside_table(buckets, positions + 2):
        raise ArtifactError(
            f"{path}: the position bias covers fewer than {positions} tokens;"
            " export it again with lower limits"
        )
    check_tensors(header.tensors, shape, buckets, path)


def _check_keys(data: dict[str, Any], path: str | Path) -> None:
    """Only known keys, with values of the right type."""
    for key, value in data.items():
        section = key.partition(".")[0]
        if section in (ARCHITECTURE, "tokenizer"):
            if key not in _KEYS:
                raise ArtifactError(f"{path}: unexpected key {key!r:.100}; export it again")
            if type(value) is not _KEYS[key]:
                raise ArtifactError(f"{path}: {key} is {value!r:.100}; export it again")
            if isinstance(value, ArrayInfo) and value.element_type not in _ARRAY_TYPES[key]:
                raise ArtifactError(
                    f"{path}: {key} is an array of type {value.element_type}; export it again"
                )
        elif section not in ("general", "edge") or isinstance(value, ArrayInfo):
            raise ArtifactError(f"{path}: unexpected key {key!r:.100}; export it again")


def _check_shape(data: dict[str, Any], shape: Architecture, path: str | Path) -> None:
    expected = {
        "embedding_length": shape.d_model,
        "feed_forward_length": shape.d_ff,
        "block_count": max(shape.num_layers, shape.num_decoder_layers),
        "decoder_block_count": shape.num_decoder_layers,
        "attention.head_count": shape.num_heads,
        "attention.key_length": shape.d_kv,
        "attention.value_length": shape.d_kv,
        "decoder_start_token_id": shape.decoder_start_token_id,
    }
    for key, value in expected.items():
        found = data.get(f"t5.{key}")
        if type(found) is not int or found != value:
            raise ArtifactError(f"{path}: t5.{key} is {found!r:.80}, the manifest says {value}")
    epsilon = shape.layer_norm_epsilon
    for key in ("t5.attention.layer_norm_rms_epsilon", "t5.attention.layer_norm_epsilon"):
        found = data.get(key, epsilon if key.endswith("norm_epsilon") else None)
        if found is None or not math.isclose(found, epsilon, rel_tol=1e-6):
            raise ArtifactError(f"{path}: {key} is {found!r:.80}, the manifest says {epsilon:g}")
    context = data.get("t5.context_length")
    if context is None or not 1 <= context <= _MAX_CONTEXT:
        raise ArtifactError(
            f"{path}: t5.context_length is {context!r:.80}, must be from 1 to {_MAX_CONTEXT:,}"
        )


def _check_vocabulary(data: dict[str, Any], shape: Architecture, path: str | Path) -> None:
    model = data.get("tokenizer.ggml.model")
    if model == "none":
        sizes = {"t5.vocab_size": data.get("t5.vocab_size")}
    elif model == "t5":
        names = ("tokens", "scores", "token_type")
        arrays = {f"tokenizer.ggml.{name}": data.get(f"tokenizer.ggml.{name}") for name in names}
        sizes = {key: getattr(array, "count", None) for key, array in arrays.items()}
    else:
        raise ArtifactError(f"{path}: the vocabulary is of type {model!r:.80}, not 't5' or 'none'")
    for key, size in sizes.items():
        if size != shape.vocab_size:
            raise ArtifactError(
                f"{path}: {key} has {size} entries, the manifest says {shape.vocab_size}"
            )
    for name in ("eos_token_id", "padding_token_id", "unknown_token_id"):
        token = data.get(f"tokenizer.ggml.{name}", 0)
        if not 0 <= token < shape.vocab_size:
            raise ArtifactError(f"{path}: tokenizer.ggml.{name} is {token}, which does not exist")
