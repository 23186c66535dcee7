"""Choice of the decoder's matrices that 4-bit formats keep in 8 bits, by their sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.conditioning.calibration import Calibration
from edge.export.quantization.grid import Grid
from edge.export.source import SourceModel
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.base import pad_batch

if TYPE_CHECKING:
    import torch

FOUR_BITS = Grid(-8, 7, 32)

# Matrices that read the same input are stored, and rounded, together.
Group = tuple[str, ...]

_ROWS = 32
_SIGN_SEEDS = range(4)
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
    yield ("lm_head.weight",)


def precise_weights(source: SourceModel, rows: Calibration) -> frozenset[str]:
    """The weights whose 4-bit rounding costs most for their size; they keep 8 bits.

    Groups are taken by error per weight until 8 bits have added a seventh to what a step reads.

    Args:
        source: The model whose weights are quantized.
        rows: Calibration rows; 32 of them are used.
    """
    measured = sensitivities(source, rows, FOUR_BITS)
    left = _EXTRA_RATIO * sum(one.weights for one in measured)
    chosen: set[str] = set()
    for one in sorted(measured, key=lambda one: (-one.error / one.weights, one.names)):
        if one.weights <= left:
            left -= one.weights
            chosen.update(one.names)
    return frozenset(chosen)


def sensitivities(source: SourceModel, rows: Calibration, grid: Grid) -> list[Sensitivity]:
    """The sensitivity of each group of `decoder_groups`, without rounding any.

    To first order, a change D of a weight changes a target's log-probability by Σ g · D x, over
    the positions' inputs x and the gradients g of their outputs. Rounding errors are independent,
    with a variance of step² / 12. Random signs of the targets give the sum of their squares from
    one gradient (Hutchinson's estimator).
    """
    import torch

    step = max(1, len(rows) // _ROWS)
    decoder = _Decoder(source, rows.inputs[::step][:_ROWS], rows.targets[::step][:_ROWS])
    groups = list(decoder_groups(source.architecture))
    errors = dict.fromkeys(groups, 0.0)
    group_of = {name: names for names in groups for name in names}
    for seed in _SIGN_SEEDS:
        for name, inputs, gradients in decoder.gradients(seed, group_of):
            weight = source.tensor(name)
            steps = np.repeat(grid.scales(weight), grid.block or weight.shape[1], axis=1)
            variances = torch.from_numpy(steps[:, : weight.shape[1]] ** 2 / 12)
            error = ((inputs**2) @ variances.T * gradients**2).sum()
            errors[group_of[name]] += float(error) / len(_SIGN_SEEDS) / decoder.targets
    return [
        Sensitivity(names, sum(source.tensor(name).size for name in names), errors[names])
        for names in groups
    ]


class _Decoder:
    """The decoder over the rows, with teacher forcing; the encoder runs once."""

    def __init__(
        self, source: SourceModel, inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> None:
        import torch

        shape = source.architecture
        self._model = source.torch_model
        ids, mask = pad_batch(inputs, shape.pad_token_id)
        labels, label_mask = pad_batch(targets, shape.pad_token_id)
        starts = np.full((len(labels), 1), shape.decoder_start_token_id, dtype=np.int64)
        self._labels = torch.from_numpy(labels)
        self._real = torch.from_numpy(label_mask).bool()
        self.targets = int(self._real.sum())
        decoder_ids = torch.from_numpy(np.concatenate([starts, labels[:, :-1]], axis=1))
        with torch.no_grad():
            self._arguments: dict[str, Any] = {
                "encoder_outputs": self._model.encoder(
                    input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
                ),
                "attention_mask": torch.from_numpy(mask),
                "use_cache": False,
            }
            self._embedded = self._model.shared(decoder_ids)

    def gradients(
        self, seed: int, names: Sequence[str] | dict[str, Group]
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Each layer's name, inputs [tokens, in], and gradients of its outputs [tokens, out].

        The gradients are those of the targets' log-probabilities, summed with random signs.
        """
        import torch

        signs = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], self.targets))
        with _recorded(self._model, names) as records, torch.enable_grad():
            logits = self._model(
                decoder_inputs_embeds=self._embedded.clone().requires_grad_(), **self._arguments
            ).logits
            chosen = logits.log_softmax(dim=-1).gather(2, self._labels[..., None])[..., 0]
            (chosen[self._real] * signs.float()).sum().backward()
        for name, (inputs, output) in records.items():
            assert output.grad is not None
            yield name, inputs.flatten(0, 1), output.grad.flatten(0, 1)


@contextmanager
def _recorded(
    model: Any, names: Sequence[str] | dict[str, Group]
) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Keep the inputs and outputs of layers, and the gradients of the outputs."""
    records: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def recorder(name: str) -> Any:
        def record(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            output.retain_grad()
            records[name] = inputs[0].detach(), output

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
