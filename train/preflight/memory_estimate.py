"""Estimate of the memory that a training run needs, and the free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.runtime.platform.memory import free_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FLOAT = 4  # bytes; weights, gradients and optimizer states stay fp32 under autocast
_BF16_ACTIVATIONS = 0.8  # relative to fp32: norms, softmax and the loss stay fp32


@dataclass(frozen=True)
class BatchShape:
    """Rows of a batch, and its padded input and target lengths in tokens."""

    rows: int
    source: int
    target: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose."""

    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.activations

    def __str__(self) -> str:
        needs = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "averaged weights": self.average,
            "activations": self.activations,
        }
        parts = [f"{name} {format_gigabytes(count)}" for name, count in needs.items() if count]
        return f"{format_gigabytes(self.total)}: {', '.join(parts)}"


def format_gigabytes(count: int) -> str:
    """Bytes as text, such as "1.50 GB" (10^9 bytes)."""
    return f"{count / 1e9:.2f} GB"


def count_parameters(model_config: PretrainedConfig) -> int:
    """Parameters of a T5-family model; nothing is allocated."""
    from edge.train.model.loading import parameter_count

    return parameter_count(_on_meta(model_config))


def count_adapter_parameters(
    model_config: PretrainedConfig, rank: int, targets: Sequence[str] | None = None
) -> int:
    """Parameters of a LoRA adapter for the linear layers `targets`, by default all in blocks.

    Raises:
        UsageError: The model does not have such a layer.
    """
    from edge.train.model.lora import chosen_layers, linear_layers

    model = _on_meta(model_config)
    layers = linear_layers(model)
    chosen = [name for target in chosen_layers(layers, targets) for name in layers[target]]
    sizes = [model.get_submodule(name).weight.shape for name in chosen]
    return sum(rank * sum(size) for size in sizes)


def _on_meta(model_config: PretrainedConfig) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from edge.train.model.loading import quiet

    with torch.device("meta"), quiet():
        return AutoModelForSeq2SeqLM.from_config(model_config)


def estimate_memory(
    model_config: PretrainedConfig,
    shape: BatchShape,
    *,
    parameters: int,
    trainable: int | None = None,
    averaged: bool = False,
    precision: str = "fp32",
) -> MemoryEstimate:
    """Estimate the memory of a training step with AdamW.

    Args:
        model_config: The model's configuration.
        shape: The largest batch.
        parameters: Parameters in memory.
        trainable: Parameters with gradients and two optimizer moments; None means all.
        averaged: Whether an average of the weights is kept.
        precision: bf16 (autocast) or fp32.
    """
    trainable = parameters if trainable is None else trainable
    activations = activation_floats(model_config, shape) * _FLOAT
    if precision == "bf16":
        # Autocast keeps a copy of the weights in bf16.
        activations = round(activations * _BF16_ACTIVATIONS) + 2 * parameters
    return MemoryEstimate(
        parameters=parameters * _FLOAT,
        gradients=trainable * _FLOAT,
        optimizer=2 * trainable * _FLOAT,
        average=trainable * _FLOAT if averaged else 0,
        activations=activations,
    )


def activation_floats(model_config: PretrainedConfig, shape: BatchShape) -> int:
    """Numbers that a forward pass saves for the backward pass, and those of the loss.

    Counted by T5's layers: what each matrix product, softmax, norm and dropout saves.
    """
    width: int = model_config.d_model
    inner: int = model_config.num_heads * model_config.d_kv
    hidden: int = model_config.d_ff
    heads: int = model_config.num_heads
    gated: bool = model_config.is_gated_act
    source, target = shape.rows * shape.source, shape.rows * shape.target  # tokens

    def attention(queries: int, keys: int, scores: int) -> int:
        # Normalized input and dropout; q and the heads' output; k and v; softmax and its dropout.
        return 4 * queries * width + 2 * queries * inner + 2 * keys * inner + 3 * heads * scores

    def feed_forward(tokens: int) -> int:
        # A gated layer saves both halves, their product and the intermediate results of gelu.
        return tokens * (4 * width + (8 if gated else 3) * hidden)

    encoder = attention(source, source, source * shape.source) + feed_forward(source)
    decoder = attention(target, target, target * shape.target) + feed_forward(target)
    decoder += attention(target, source, target * shape.source)
    layers: int = model_config.num_layers * encoder + model_config.num_decoder_layers * decoder
    loss: int = 3 * target * model_config.vocab_size  # logits, their softmax and its gradient
    return layers + loss


def available_memory(device: str = "cpu") -> int:
    """Free bytes on the GPU for "cuda", else in main memory within the container's limit."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return free_memory()
