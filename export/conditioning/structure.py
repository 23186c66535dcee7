"""Which weights of a T5 read and write which activations, by their state-dict names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.runtime.artifact.manifest import Architecture
from edge.train.model.architecture import HEAD

ENCODER_NORM = "encoder.final_layer_norm.weight"
DECODER_NORM = "decoder.final_layer_norm.weight"


@dataclass(frozen=True)
class Norm:
    """An RMS norm and the matrices that read its output."""

    weight: str
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two matrices: the outputs of `first` are inputs of `second`, linearly and one to one.

    Scaling an output row of `first` by s and the same input column of `second` by 1 / s changes
    nothing. With `positive`, only for s > 0 (there is a ReLU between the two).
    """

    first: str
    second: str
    positive: bool = False


def blocks(shape: Architecture) -> Iterator[tuple[str, str]]:
    """(stack, prefix of a block's layers) of every block, the encoder's first."""
    for stack, layers in (("encoder", shape.num_layers), ("decoder", shape.num_decoder_layers)):
        for layer in range(layers):
            yield stack, f"{stack}.block.{layer}.layer"


def attentions(shape: Architecture) -> Iterator[str]:
    """Prefixes of all attentions, such as `decoder.block.0.layer.1.EncDecAttention`."""
    for stack, block in blocks(shape):
        yield f"{block}.0.SelfAttention"
        if stack == "decoder":
            yield f"{block}.1.EncDecAttention"


def feed_forwards(shape: Architecture) -> Iterator[str]:
    """Prefixes of all feed-forward layers, such as `encoder.block.0.layer.1.DenseReluDense`."""
    for stack, block in blocks(shape):
        yield f"{block}.{1 if stack == 'encoder' else 2}.DenseReluDense"


def norms(shape: Architecture) -> Iterator[Norm]:
    """All RMS norms; the encoder's last one is read by every cross-attention's keys and values."""
    inner = ("wi_0", "wi_1") if shape.is_gated_act else ("wi",)
    cross = []
    for stack, block in blocks(shape):
        own = tuple(f"{block}.0.SelfAttention.{p}.weight" for p in "qkv")
        yield Norm(f"{block}.0.layer_norm.weight", own)
        if stack == "decoder":
            attention = f"{block}.1.EncDecAttention"
            yield Norm(f"{block}.1.layer_norm.weight", (f"{attention}.q.weight",))
            cross += [f"{attention}.k.weight", f"{attention}.v.weight"]
        last = 1 if stack == "encoder" else 2
        dense = f"{block}.{last}.DenseReluDense"
        yield Norm(f"{block}.{last}.layer_norm.weight", tuple(f"{dense}.{p}.weight" for p in inner))
    yield Norm(ENCODER_NORM, tuple(cross))
    yield Norm(DECODER_NORM, (HEAD,))


def value_pairs(shape: Architecture) -> Iterator[Pair]:
    """Each attention's values and output projection."""
    for attention in attentions(shape):
        yield Pair(f"{attention}.v.weight", f"{attention}.o.weight")


def feed_forward_pairs(shape: Architecture) -> Iterator[Pair]:
    """Each feed-forward layer's linear half and output; none where the activation is in between.

    Gated layers have a linear half, `wi_1`. Of the others, ReLU commutes with positive factors,
    and GELU and SiLU with none.
    """
    for dense in feed_forwards(shape):
        if shape.is_gated_act:
            yield Pair(f"{dense}.wi_1.weight", f"{dense}.wo.weight")
        elif shape.dense_act_fn == "relu":
            yield Pair(f"{dense}.wi.weight", f"{dense}.wo.weight", positive=True)


def residual_writers(shape: Architecture) -> Iterator[str]:
    """Matrices whose output is added to the residual stream."""
    for attention in attentions(shape):
        yield f"{attention}.o.weight"
    for dense in feed_forwards(shape):
        yield f"{dense}.wo.weight"


def in_encoder(weight: str) -> bool:
    """Whether a weight belongs to the encoder's stack."""
    return weight.startswith("encoder.")


def input_names(shape: Architecture) -> dict[str, str]:
    """Weight of a linear layer → name of what it reads; layers with one input share the name."""
    inputs: dict[str, str] = {HEAD: "decoder.output"}
    for attention in attentions(shape):
        cross = attention.endswith("EncDecAttention")
        for projection in "qkv":
            read = "encoder.output" if cross and projection != "q" else f"{attention}.input"
            inputs[f"{attention}.{projection}.weight"] = read
        inputs[f"{attention}.o.weight"] = f"{attention}.context"
    for dense in feed_forwards(shape):
        for name in ("wi_0", "wi_1") if shape.is_gated_act else ("wi",):
            inputs[f"{dense}.{name}.weight"] = f"{dense}.input"
        inputs[f"{dense}.wo.weight"] = f"{dense}.inner"
    return inputs
