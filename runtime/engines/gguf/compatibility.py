"""Checks of a GGUF header against the artifact's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.buckets import inside_table
from edge.runtime.engines.gguf.header import GgufHeader
from edge.runtime.errors import ArtifactError

ARCHITECTURE = "t5"
# Written by the exporter: the longest input or output for which the position bias is exact.
POSITION_LIMIT = "edge.position_limit"

# Known keys; llama.cpp could abort on others.
_MODEL_KEYS = {
    "attention.head_count", "attention.key_length", "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon", "attention.relative_buckets_count",
    "attention.value_length", "block_count", "context_length", "decoder_block_count",
    "decoder_start_token_id", "embedding_length", "feed_forward_length", "vocab_size",
}  # fmt: skip
_TOKENIZER_KEYS = {
    "add_bos_token", "add_eos_token", "add_space_prefix", "eos_token_id", "model",
    "padding_token_id", "pre", "precompiled_charsmap", "remove_extra_whitespaces", "scores",
    "token_type", "tokens", "unknown_token_id",
}  # fmt: skip


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
            f"{path}: the architecture is {data.get('general.architecture')!r}, not 't5'"
        )
    for key in data:
        section, _, name = key.partition(".")
        unknown = (
            (section == ARCHITECTURE and name not in _MODEL_KEYS)
            or (
                key.startswith("tokenizer.")
                and key[len("tokenizer.ggml.") :] not in _TOKENIZER_KEYS
            )
            or section == "split"
        )
        if unknown:
            raise ArtifactError(f"{path}: unexpected key {key!r}; export it again")
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
            raise ArtifactError(f"{path}: t5.{key} is {found!r}, the manifest says {value}")
    epsilon = data.get("t5.attention.layer_norm_rms_epsilon")
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise ArtifactError(f"{path}: t5.attention.layer_norm_rms_epsilon is {epsilon!r}")


def _check_vocabulary(data: dict[str, Any], shape: Architecture, path: str | Path) -> None:
    model = data.get("tokenizer.ggml.model")
    if model == "none":
        sizes = {"t5.vocab_size": data.get("t5.vocab_size")}
    elif model == "t5":
        names = ("tokens", "scores", "token_type")
        arrays = {f"tokenizer.ggml.{name}": data.get(f"tokenizer.ggml.{name}") for name in names}
        sizes = {key: getattr(array, "count", None) for key, array in arrays.items()}
    else:
        raise ArtifactError(f"{path}: the vocabulary is of type {model!r}, not 't5' or 'none'")
    for key, size in sizes.items():
        if size != shape.vocab_size:
            raise ArtifactError(
                f"{path}: {key} has {size} entries, the manifest says {shape.vocab_size}"
            )
