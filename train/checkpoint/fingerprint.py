"""What a checkpoint belongs to, as hashes: the model it started from, tokenizer, rows, options."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.data import Splits
    from edge.train.model.loading import Trainable

# Of the model's config: what changes its answers though no weight has another shape.
_SHAPE = ("d_kv", "num_heads", "feed_forward_proj", "relative_attention_max_distance")
_MOST_BYTES = 2**20  # hashed at a time


def identity_of(config: TrainConfig, trainable: Trainable, splits: Splits) -> dict[str, object]:
    """As JSON; equal for two runs exactly if one may go on from the other's checkpoint."""
    return {
        "model": _model_hash(trainable),
        "tokenizer": _hash(trainable.tokenizer.backend_tokenizer.to_str()),
        "data": _rows_hash(splits),
        "config": json.loads(json.dumps(config.must_match())),
    }


def _model_hash(trainable: Trainable) -> str:
    """Over the initial weights, so that neither a path nor a name decides."""
    import torch

    model = trainable.model
    digest = hashlib.sha256()
    digest.update(json.dumps([getattr(model.config, name) for name in _SHAPE]).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().cpu().contiguous().view(torch.uint8).flatten()
        for start in range(0, flat.numel(), _MOST_BYTES):
            digest.update(flat[start : start + _MOST_BYTES].numpy())
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
