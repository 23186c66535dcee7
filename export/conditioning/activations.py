"""Statistics of a model's activations on calibration rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.conditioning.calibration import Calibration
from edge.export.conditioning.structure import in_encoder
from edge.export.reference import BATCH_TOKENS, shift_right
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.base import pad_batch
from edge.runtime.inference.batching import batches_by_length

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Observe = Callable[[str, "torch.Tensor"], None]  # (name, activations [tokens, width])


def largest_inputs(
    model: PreTrainedModel, shape: Architecture, rows: Calibration, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The largest magnitude of each input channel of linear layers.

    Args:
        names: State-dict names of the layers' weights.

    Returns:
        Weight name → float32 [in].
    """
    largest: dict[str, torch.Tensor] = {}

    def observe(name: str, values: torch.Tensor) -> None:
        found = values.abs().amax(dim=0)
        largest[name] = found if name not in largest else largest[name].maximum(found)

    run_observed(model, shape, rows, {name: name for name in names}, observe)
    return {name: values.numpy() for name, values in largest.items()}


def input_moments(
    model: PreTrainedModel, shape: Architecture, rows: Calibration, inputs: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """XᵀX / tokens of the inputs X of linear layers: the Hessian of their squared output error.

    Args:
        inputs: Weight name → name of the input; weights with one input share its moments.

    Returns:
        Input name → float32 [in, in].
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def observe(name: str, values: torch.Tensor) -> None:
        if name in sums:
            sums[name].addmm_(values.T, values)
        else:
            sums[name] = values.T @ values
        counts[name] = counts.get(name, 0) + values.shape[0]

    first_reader: dict[str, str] = {}
    for weight, name in inputs.items():
        first_reader.setdefault(name, weight)
    layers = {weight: name for name, weight in first_reader.items()}
    run_observed(model, shape, rows, layers, observe)
    moments = {name: total.numpy() for name, total in sums.items()}
    for name, total in moments.items():
        total /= counts[name]
    return moments


def run_observed(
    model: PreTrainedModel,
    shape: Architecture,
    rows: Calibration,
    layers: Mapping[str, str],
    observe: Observe,
) -> None:
    """Run the rows with teacher forcing and hand over the inputs of layers, padding left out.

    Args:
        layers: Weight name of a linear layer → the name that `observe` gets.
    """
    import torch

    masks: dict[str, Any] = {}
    longest = [max(map(len, pair)) for pair in zip(rows.inputs, rows.targets, strict=True)]
    decodes = not all(map(in_encoder, layers))
    with _hooks(model, layers, observe, masks), torch.inference_mode():
        for batch in batches_by_length(longest, max_tokens=BATCH_TOKENS):
            ids, mask = pad_batch([rows.inputs[row] for row in batch], shape.pad_token_id)
            targets, target_mask = pad_batch(
                [rows.targets[row] for row in batch], shape.pad_token_id
            )
            masks["encoder"] = torch.from_numpy(mask).bool()
            masks["decoder"] = torch.from_numpy(target_mask).bool()
            read = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            if not decodes:
                model.encoder(**read)
                continue
            model(
                **read,
                decoder_input_ids=torch.from_numpy(
                    shift_right(targets, shape.decoder_start_token_id)
                ),
            )


@contextmanager
def _hooks(
    model: PreTrainedModel,
    layers: Mapping[str, str],
    observe: Observe,
    masks: Mapping[str, Any],
) -> Iterator[None]:
    handles = []
    modules = dict(model.named_modules())
    try:
        for weight, name in layers.items():
            handles.append(
                modules[weight.removesuffix(".weight")].register_forward_pre_hook(
                    _hook(name, _stack_read(weight), observe, masks)
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(
    name: str, stack: str, observe: Observe, masks: Mapping[str, Any]
) -> Callable[[Any, tuple[Any, ...]], None]:
    def hook(_: Any, inputs: tuple[Any, ...]) -> None:
        observe(name, inputs[0][masks[stack]].float())

    return hook


def _stack_read(weight: str) -> str:
    """Whose positions a layer's input has: cross-attention's keys and values read the encoder."""
    if ".EncDecAttention.k." in weight or ".EncDecAttention.v." in weight:
        return "encoder"
    return "encoder" if in_encoder(weight) else "decoder"
