"""What a training run needs in memory, estimated before it begins, and what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FLOAT = 4  # bytes; weights, gradients and optimizer are fp32 whatever the autocast
_BF16_ACTIVATIONS = 0.8  # of the fp32 ones: norms, softmax and the loss stay fp32


@dataclass(frozen=True)
class Workload:
    """What is trained at once: rows of a batch and their longest input and target in tokens."""

    rows: int
    source: int
    target: int


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by what they are for."""

    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.average + self.activations

    def __str__(self) -> str:
        needs = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "averaged weights": self.average,
            "activations": self.activations,
        }
        parts = [f"{name} {gigabytes(count)}" for name, count in needs.items() if count]
        return f"{gigabytes(self.total)}: {', '.join(parts)}"


def gigabytes(count: int) -> str:
    """ "1.50 GB"."""
    return f"{count / 1e9:.2f} GB"


def parameters_of(settings: PretrainedConfig) -> int:
    """Weights of a T5-family model of this configuration; none is allocated."""
    from edge.train.model.loading import parameter_count

    return parameter_count(_on_meta(settings))


def adapter_parameters(
    settings: PretrainedConfig, rank: int, targets: Sequence[str] | None = None
) -> int:
    """Weights of a LoRA adapter of the linear layers `targets`, by default all of the blocks'."""
    from edge.train.model.lora import linear_layers

    model = _on_meta(settings)
    layers = linear_layers(model)
    chosen = [name for target in targets or layers for name in layers.get(target, ())]
    sizes = [model.get_submodule(name).weight.shape for name in chosen]
    return sum(rank * sum(size) for size in sizes)


def _on_meta(settings: PretrainedConfig) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from edge.train.model.loading import quiet

    with torch.device("meta"), quiet():
        return AutoModelForSeq2SeqLM.from_config(settings)


def memory_need(
    settings: PretrainedConfig,
    work: Workload,
    *,
    parameters: int,
    trainable: int | None = None,
    averaged: bool = False,
    precision: str = "fp32",
) -> MemoryNeed:
    """AdamW with two moments of every trainable weight; activations as `activation_floats`."""
    trainable = parameters if trainable is None else trainable
    activations = activation_floats(settings, work) * _FLOAT
    if precision == "bf16":
        # Autocast keeps a copy of the weights in two bytes each.
        activations = round(activations * _BF16_ACTIVATIONS) + 2 * parameters
    return MemoryNeed(
        parameters=parameters * _FLOAT,
        gradients=trainable * _FLOAT,
        optimizer=2 * trainable * _FLOAT,
        average=trainable * _FLOAT if averaged else 0,
        activations=activations,
    )


def activation_floats(settings: PretrainedConfig, work: Workload) -> int:
    """Numbers that a forward pass keeps for the backward pass, and the loss's own.

    Counted from T5's layers: what each matrix product, softmax, norm and dropout remembers.
    """
    width, inner = settings.d_model, settings.num_heads * settings.d_kv
    hidden, heads = settings.d_ff, settings.num_heads
    gated = settings.feed_forward_proj.startswith("gated")
    source, target = work.rows * work.source, work.rows * work.target  # tokens

    def attention(queries: int, keys: int, scores: int) -> int:
        # Normed input, dropped output; q and the heads' result, k and v; softmax and its dropout.
        return 4 * queries * width + 2 * queries * inner + 2 * keys * inner + 3 * heads * scores

    def feed_forward(tokens: int) -> int:
        # A gated layer keeps both halves, their product and what gelu is made of.
        return tokens * (4 * width + (8 if gated else 3) * hidden)

    encoder = attention(source, source, source * work.source) + feed_forward(source)
    decoder = attention(target, target, target * work.target) + feed_forward(target)
    decoder += attention(target, source, target * work.source)
    layers = settings.num_layers * encoder + settings.num_decoder_layers * decoder
    # Logits, their softmax and its gradient.
    return layers + 3 * target * settings.vocab_size


def available_memory(device: str = "cpu") -> int:
    """Bytes that can be had now: of the device, or of this machine within its container's limit."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _container_limit()
    return free if limit is None else min(free, limit)


def _container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a control group still allows (version 2, then 1), or None where there is no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = int((root / limit).read_text())
            return max(0, most - int((root / used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return None
