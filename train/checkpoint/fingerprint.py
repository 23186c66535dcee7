"""Fingerprint of a run, to reject the checkpoints of another run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.train.config import RunConfig
    from edge.train.data import Splits
    from edge.train.model.loading import Trainable

# Settings of the model's config that change its answers but not the shape of its weights.
_MODEL_SETTINGS = ("d_kv", "num_heads", "dense_act_fn", "relative_attention_max_distance")
_CHUNK_BYTES = 2**20


def run_fingerprint(config: RunConfig, trainable: Trainable, splits: Splits) -> dict[str, object]:
    """SHA-256 hashes of model, tokenizer and rows, and the options that affect what is learned.

    JSON-serializable. Two runs have equal fingerprints if and only if one can resume from the
    other's checkpoints. `trainable` must hold its initial weights.
    """
    return {
        "model": _model_hash(trainable),
        "tokenizer": _hash(trainable.tokenizer.backend_tokenizer.to_str()),
        "data": _rows_hash(splits),
        "config": json.loads(json.dumps(config.fingerprint_fields())),
    }


def _model_hash(trainable: Trainable) -> str:
    """Hash of the weights themselves, so that neither a path nor a name matters."""
    import torch

    model = trainable.model
    digest = hashlib.sha256()
    settings = [getattr(model.config, name) for name in _MODEL_SETTINGS]
    digest.update(json.dumps(settings).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().cpu().contiguous().view(torch.uint8).flatten()
        for start in range(0, flat.numel(), _CHUNK_BYTES):
            digest.update(flat[start : start + _CHUNK_BYTES].numpy())
    return digest.hexdigest()


def _rows_hash(splits: Splits) -> str:
    digest = hashlib.sha256()
    for pairs in (splits.train, splits.dev):
        for pair in pairs:
            for text in (pair.source, pair.target):
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little"))
                digest.update(encoded)
        digest.update(b"|")
    return digest.hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
