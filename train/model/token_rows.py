"""Embedding rows of added pieces under LoRA: trained, saved and merged with the adapter.

peft's `trainable_token_indices` replaces single rows of the embedding. With a separate output head
it gets separate rows: transformers 5 marks every T5 as tied, and peft believes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.artifact import TOKENIZER_MAX_BYTES, TOKENIZER_NAME
from edge.runtime.errors import ModelError
from edge.train.model.loading import Trainable
from edge.train.vocabulary.embeddings import head_is_tied
from edge.train.vocabulary.extension import characters_between, related_to_older
from edge.train.vocabulary.policy import rebuilt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

OPTION = "trainable_token_indices"
_EMBEDDING, _HEAD = "shared", "lm_head"
_TIES = "_tied_weights_keys"
_ROWS = "base_model.model.{}.token_adapter.trainable_tokens_delta"


def rows_to_train(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, list[int]] | None:
    """The value of `trainable_token_indices` that trains the rows of `ids`; None without ids."""
    if not ids:
        return None
    return {layer: list(ids) for layer in _layers(model)}


def separate_head(model: PreTrainedModel) -> None:
    """Tell peft that a separate output head is separate; `restore_ties` ends it."""
    if not head_is_tied(model):
        ties: Any = getattr(model, _TIES)
        kept = {name: source for name, source in ties.items() if not name.startswith(_HEAD)}
        setattr(model, _TIES, kept)


def restore_ties(model: PreTrainedModel) -> None:
    """Undo `separate_head`."""
    vars(model).pop(_TIES, None)


def adapter_rows(
    model: PreTrainedModel,
    settings: Mapping[str, Any],
    weights: dict[str, torch.Tensor],
    folder: Path,
) -> dict[str, list[int]] | None:
    """The trained rows of an adapter, after a check that its weights fit the model.

    Args:
        model: The base model.
        settings: The adapter's configuration.
        weights: The adapter's weights.
        folder: The adapter, for error messages.

    Raises:
        ModelError: The rows are not those of the embedding and a separate head, or do not fit.
    """
    rows = settings.get(OPTION)
    if not rows:
        return None
    layers = _layers(model)
    size, width = model.config.vocab_size, model.config.d_model
    if not isinstance(rows, dict) or set(rows) != set(layers):
        raise ModelError(
            f"{folder}: {OPTION} is {rows!r:.80}. It can be merged only for {' and '.join(layers)}"
        )
    for layer, ids in rows.items():
        fits = isinstance(ids, list) and all(type(n) is int and 0 <= n < size for n in ids)
        found = weights.get(_ROWS.format(layer))
        if not fits or found is None or tuple(found.shape) != (len(ids), width):
            raise ModelError(
                f"{folder}: the trained rows of {layer} do not fit an embedding of {size} ×"
                f" {width}; the adapter belongs to another base model"
            )
    return {layer: list(ids) for layer, ids in rows.items()}


def is_row_weight(name: str) -> bool:
    """Whether a weight of an adapter is that of trained rows."""
    return name in (_ROWS.format(_EMBEDDING), _ROWS.format(_HEAD))


def take_adapter_tokenizer(base: Trainable, adapter: Path) -> None:
    """Extend a base model by the characters of the tokenizer.json in an adapter's folder.

    Does nothing if there is none, or if it does not extend the base's tokenizer.

    Raises:
        ModelError: The file can't be read.
    """
    path = adapter / TOKENIZER_NAME
    if not path.is_file():
        return
    try:
        if path.stat().st_size > TOKENIZER_MAX_BYTES:
            raise ModelError(f"{path}: larger than {TOKENIZER_MAX_BYTES >> 20} MiB")
        extended = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read ({error})") from None
    extend_like(base, extended, path)


def extend_like(base: Trainable, tokenizer_json: str, where: Path) -> None:
    """Extend a base model by the characters that a tokenizer.json adds to its tokenizer.

    Raises:
        ModelError: It is not a tokenizer.json.
    """
    backend = getattr(base.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    older = backend.to_str()
    try:
        added = characters_between(older, tokenizer_json)
        if added:
            related = related_to_older(older, added)
            base.extend_by(rebuilt(base.tokenizer, tokenizer_json), added, related)
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        raise ModelError(f"{where}: not a tokenizer.json ({error})") from None


def _layers(model: PreTrainedModel) -> tuple[str, ...]:
    return (_EMBEDDING,) if head_is_tied(model) else (_EMBEDDING, _HEAD)
