"""Embedding and output head rows of added pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MULTIPLE = 64  # a good number of rows for the kernels of all engines


def padded_size(pieces: int, vocab_size: int) -> int:
    """Rows of an embedding for so many pieces: `vocab_size` if it suffices, or a multiple of 64."""
    return vocab_size if pieces <= vocab_size else -(-pieces // _MULTIPLE) * _MULTIPLE


def head_is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the embedding, whatever the config says."""
    found: Any = model
    return bool(found.lm_head.weight.data_ptr() == found.shared.weight.data_ptr())


def initialize_rows(model: PreTrainedModel, related: Mapping[int, Sequence[int]]) -> None:
    """Set the rows of new ids to the mean of the rows that they resemble, in place.

    Grows embedding and head to a multiple of 64 rows if they are too small. A separate head stays
    separate.

    Args:
        model: A T5 or mT5.
        related: For each new id the ids of older pieces.
    """
    import torch

    if not related:
        return
    _grow(model, max(related) + 1)
    found: Any = model
    weights = [found.shared.weight]
    if not head_is_tied(model):
        weights.append(found.lm_head.weight)
    with torch.no_grad():
        for weight in weights:
            for number, older in related.items():
                weight[number] = weight[list(older)].mean(dim=0)


def _grow(model: Any, pieces: int) -> None:
    before = model.config.vocab_size
    size = padded_size(pieces, before)
    if size == before:
        return
    tied = head_is_tied(model)
    # Not `resize_token_embeddings`: it ties a separate head, as the config says "tied".
    embedding = _grown(model.shared.weight, size)
    head = embedding if tied else _grown(model.lm_head.weight, size)
    for module in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
        module.weight = embedding
        module.num_embeddings = size
    model.lm_head.weight = head
    model.lm_head.out_features = size
    for config in (model.config, model.encoder.config, model.decoder.config):
        config.vocab_size = size


def _grown(weight: Any, size: int) -> Any:
    """A copy with `size` rows; the new ones are zero."""
    import torch

    grown = weight.new_zeros(size, weight.shape[1])
    grown[: weight.shape[0]] = weight.detach()
    return torch.nn.Parameter(grown, requires_grad=weight.requires_grad)
