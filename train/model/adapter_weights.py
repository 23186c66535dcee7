"""Weights of a LoRA adapter, checked before peft sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, one_line
from edge.train.model.adapter_config import shortened
from edge.train.model.weights import require_finite, require_safetensors
from edge.train.vocabulary.embeddings import head_is_tied

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_BASE_LAYER = ".base_layer.weight"  # which peft saves with adapters of embeddings and heads
_HEAD_LAYER = "lm_head"
_FLOAT_TYPES = ("float64", "float32", "float16", "bfloat16")


def read_adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder by name.

    Raises:
        ModelError: There are none, the file is damaged or a pickle, or a tensor is not of
            floating-point numbers or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_safetensors(folder, _WEIGHTS)
    path = folder / _WEIGHTS
    try:
        loaded: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: can't be read ({one_line(error)})") from error
    if not loaded:
        raise ModelError(f"{folder}: no weights in {_WEIGHTS}")
    for name, weight in loaded.items():
        kind = str(weight.dtype).removeprefix("torch.")
        if kind not in _FLOAT_TYPES:
            raise ModelError(
                f"{path}: {shortened(name)} is stored as {kind}; an adapter's weights are"
                " floating-point numbers"
            )
    require_finite(loaded.items(), str(path))
    return loaded


def require_fit(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], settings: dict[str, Any], folder: Path
) -> list[str]:
    """The names of the adapted layers, after a check that the model has them in the same sizes.

    Raises:
        ModelError: The adapter does not fit; names the first layer that differs.
    """
    layers = dict(model.named_modules())
    targets = set()
    for name, weight in weights.items():
        _require_linear_layer(name, model, folder)
        layer, _, part = name.removeprefix(_PREFIX).partition(".lora_")
        if not part or part.removesuffix(".weight") not in ("A", "B") or weight.dim() != 2:
            raise ModelError(f"{folder}: {shortened(name)} is not a weight of a LoRA adapter")
        module: Any = layers.get(layer)
        width = getattr(module, "in_features" if part.startswith("A") else "out_features", None)
        needed = weight.shape[1 if part.startswith("A") else 0]
        if width != needed:
            has = "has no such layer" if width is None else f"has {width}"
            raise ModelError(
                f"{folder}: the adapter belongs to another base model: it needs {needed} features"
                f" at {shortened(layer)}, but this model {has}"
            )
        targets.add(layer)
    incomplete = [t for t in targets if f"{_PREFIX}{t}.lora_A.weight" not in weights]
    incomplete += [t for t in targets if f"{_PREFIX}{t}.lora_B.weight" not in weights]
    if incomplete or not targets:
        what = f"one half of the adapter of {incomplete[0]}" if incomplete else "all weights"
        raise ModelError(f"{folder}: incomplete adapter; missing: {what}")
    for layer in sorted(targets):
        _require_rank(weights, layer, settings, folder)
    return sorted(targets)


def _require_linear_layer(name: str, model: PreTrainedModel, folder: Path) -> None:
    """Check that a weight is named as in peft's files, and belongs to a layer that can be merged.

    Raises:
        ModelError: It does not; the message says why.
    """
    if ".lora_" in name and not name.startswith(_PREFIX):
        raise ModelError(
            f"{folder}: {shortened(name)} lacks the prefix {_PREFIX}, which peft's files have."
            " Rename the weights, or save the adapter with peft's save_pretrained"
        )
    layer = name.removeprefix(_PREFIX).partition(".lora_")[0].removesuffix(_BASE_LAYER)
    is_tied_head = layer == _HEAD_LAYER and head_is_tied(model)
    if ".lora_embedding_" in name or name.endswith(_BASE_LAYER) or is_tied_head:
        raise ModelError(
            f"{folder}: adapts {shortened(layer)}; only adapters of linear layers, such as q, v, wi"
            " and wo, can be merged, not those of embeddings, nor of a head that shares its weights"
        )


def _require_rank(
    weights: dict[str, torch.Tensor], layer: str, settings: dict[str, Any], folder: Path
) -> None:
    from peft.utils.other import get_pattern_key

    patterns = settings.get("rank_pattern", {})
    expected = patterns.get(get_pattern_key(patterns, layer), settings["r"])
    ranks = (
        weights[f"{_PREFIX}{layer}.lora_A.weight"].shape[0],
        weights[f"{_PREFIX}{layer}.lora_B.weight"].shape[1],
    )
    other = next((rank for rank in ranks if rank != expected), None)
    if other is not None:
        raise ModelError(
            f"{folder}: the weights have rank {other}, but the configuration says {expected}"
            f" ({layer})"
        )
