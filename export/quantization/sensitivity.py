"""Choice of the decoder's matrices that 4-bit formats keep in 8 bits, by their sensitivity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.conditioning.calibration import Calibration
from edge.export.quantization.grid import Grid
from edge.export.reference import shift_right
from edge.export.source import SourceModel
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.base import pad_batch
from edge.runtime.platform.memory import give_back_free_memory
from edge.train.model.architecture import HEAD

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FOUR_BITS = Grid(-8, 7, 32)

# Matrices that read the same input are stored, and rounded, together.
Group = tuple[str, ...]

_ROWS = 16
_ROWS_AT_ONCE = 4  # their activations and gradients are kept
_SIGN_SEEDS = range(2)
# What 8 bits may add to the bytes that a step reads in 4 bits: as much as cross-attention's query
# and output projections have.
_EXTRA_RATIO = 1 / 7


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one group of matrices costs.

    Attributes:
        names: State-dict names of the weights.
        weights: Number of weights.
        error: Expected mean square change of the targets' log-probabilities, in nats².
    """

    names: Group
    weights: int
    error: float


def decoder_groups(shape: Architecture) -> Iterator[Group]:
    """The matrices that every step of the decoder reads, in groups with one input; lm_head last."""
    inner = ("wi_0", "wi_1") if shape.is_gated_act else ("wi",)
    for layer in range(shape.num_decoder_layers):
        block = f"decoder.block.{layer}.layer"
        attention, cross = f"{block}.0.SelfAttention", f"{block}.1.EncDecAttention"
        dense = f"{block}.2.DenseReluDense"
        yield tuple(f"{attention}.{name}.weight" for name in "qkv")
        yield (f"{attention}.o.weight",)
        yield (f"{cross}.q.weight",)
        yield (f"{cross}.o.weight",)
        yield tuple(f"{dense}.{name}.weight" for name in inner)
        yield (f"{dense}.wo.weight",)
    yield (HEAD,)


def precise_weights(source: SourceModel, rows: Calibration) -> frozenset[str]:
    """The weights whose 4-bit rounding costs most for their size; they keep 8 bits.

    Groups are taken by error per weight until 8 bits have added a seventh to what a step reads.

    Args:
        source: The model whose weights are quantized.
        rows: Calibration rows; 16 of them are used.
    """
    measured = sensitivities(source, rows, FOUR_BITS)
    left = _EXTRA_RATIO * sum(one.weights for one in measured)
    chosen: set[str] = set()
    for one in sorted(measured, key=lambda one: (-one.error / one.weights, one.names)):
        if one.weights <= left:
            left -= one.weights
            chosen.update(one.names)
    return frozenset(chosen)


def kept_weights(source: SourceModel) -> frozenset[str]:
    """The weights that 4-bit formats keep in 8 bits.

    Without a calibration they are the cross-attention's query and output projections: a seventh of
    what a step reads, and two fifths of the error of a model of 1.8 M parameters.
    """
    if source.precise_weights is not None:
        return source.precise_weights()
    groups = decoder_groups(source.architecture)
    return frozenset(name for names in groups for name in names if ".EncDecAttention." in name)


def sensitivities(source: SourceModel, rows: Calibration, grid: Grid) -> list[Sensitivity]:
    """The sensitivity of each group of `decoder_groups`, without rounding any.

    To first order, a change D of a weight changes a target's log-probability by Σ g · D x, over
    the positions' inputs x and the gradients g of their outputs. Rounding errors are independent,
    with a variance of step² / 12. Random signs of the targets give the sum of their squares from
    one gradient (Hutchinson's estimator).
    """
    step = max(1, len(rows) // _ROWS)
    inputs, targets = rows.inputs[::step][:_ROWS], rows.targets[::step][:_ROWS]
    groups = list(decoder_groups(source.architecture))
    variances, sizes = {}, {}
    for name in (name for names in groups for name in names):
        weight = source.tensor(name)
        variances[name], sizes[name] = grid.scales(weight) ** 2 / 12, weight.size
    errors = dict.fromkeys(variances, 0.0)
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        give_back_free_memory()
        part = slice(start, start + _ROWS_AT_ONCE)
        for name, (energies, squares) in _observed(
            source, list(variances), inputs[part], targets[part], grid
        ).items():
            expected = np.einsum("tb,ob,to->", energies, variances[name], squares, optimize=True)
            errors[name] += float(expected) / sum(map(len, targets))
    source.release_memory()
    give_back_free_memory()
    return [
        Sensitivity(
            group,
            sum(sizes[name] for name in group),
            sum(errors[name] for name in group),
        )
        for group in groups
    ]


def _observed(
    source: SourceModel,
    names: Sequence[str],
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    grid: Grid,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each layer, by its weight's name: what rounding errors are multiplied by.

    Returns:
        The squared inputs, summed over each block of the grid [tokens, blocks], and the squared
        gradients of the outputs [tokens, out].
    """
    import torch

    with _recorded(source.torch_model, names) as records, torch.enable_grad():
        log_probs = _target_log_probs(source, inputs, targets)
        gradients = _squared_gradients(log_probs, [records[name][1] for name in names])
    return {
        name: (grid.blocks(records[name][0].numpy() ** 2).sum(axis=-1), squares.numpy())
        for name, squares in zip(names, gradients, strict=True)
    }


def _target_log_probs(
    source: SourceModel, inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Log-probabilities of all targets' tokens [tokens], with gradients in the decoder alone."""
    import torch

    shape, model = source.architecture, source.torch_model
    ids, mask = map(torch.from_numpy, pad_batch(inputs, shape.pad_token_id))
    padded, target_mask = pad_batch(targets, shape.pad_token_id)
    decoder_ids = torch.from_numpy(shift_right(padded, shape.decoder_start_token_id))
    with torch.no_grad():
        encoded = model.encoder(input_ids=ids, attention_mask=mask)
        embedded = model.shared(decoder_ids)
    logits = model(
        encoder_outputs=encoded,
        attention_mask=mask,
        decoder_inputs_embeds=embedded.requires_grad_(),
        use_cache=False,
    ).logits
    log_probs: torch.Tensor = logits.log_softmax(dim=-1)
    chosen = log_probs.gather(2, torch.from_numpy(padded)[..., None])[..., 0]
    return chosen[torch.from_numpy(target_mask).bool()]


def _squared_gradients(
    log_probs: torch.Tensor, outputs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Mean over random signs of the squared gradients of each output [tokens, out]."""
    import torch

    totals = [torch.zeros_like(output).flatten(0, 1) for output in outputs]
    for seed in _SIGN_SEEDS:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(log_probs))
        signed = (log_probs * torch.from_numpy(signs).float()).sum()
        gradients = torch.autograd.grad(signed, outputs, retain_graph=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient.flatten(0, 1) ** 2 / len(_SIGN_SEEDS)
    return totals


@contextmanager
def _recorded(
    model: PreTrainedModel, names: Iterable[str]
) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Keep the inputs [tokens, in] and outputs [rows, tokens, out] of layers, by weight name."""
    records: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def recorder(name: str) -> Any:
        def record(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            records[name] = inputs[0].detach().flatten(0, 1), output

        return record

    handles = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(recorder(name))
        for name in names
    ]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
