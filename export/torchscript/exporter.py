"""The TorchScript exporter: one file that plain `torch.jit.load` reads.

PyTorch has deprecated TorchScript and torch.ao.quantization. Both still work; their warnings are
suppressed, because users can't act on them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from edge.export.base import EIGHT_BIT, EXACT, Exporter, Tolerance
from edge.export.position_bias import decoder_bias_by_distance, encoder_bias_by_distance
from edge.export.source import SourceModel
from edge.export.torchscript.layers import Int8Embedding, PositionBias
from edge.export.torchscript.model import ScriptedT5

MODEL_NAME = "model.ts"
# Methods and attributes that callers of the file use, besides forward.
_PRESERVED = ("encode", "step", "greedy", "pad", "eos", "start", "pieces")


class TorchScriptExporter(Exporter):
    """Writes model.ts, with the methods encode, step and greedy of `ScriptedT5`."""

    format = "torchscript"
    quantizations: ClassVar[Mapping[str, str]] = {
        "float32": "no quantization",
        "int8": "8-bit weights per output row, 8-bit activations; the encoder's wo in float32",
    }
    full_precision: ClassVar[Collection[str]] = ("float32",)
    auto = "int8"
    aliases: ClassVar[Mapping[str, str]] = {"none": "float32", "fp32": "float32"}
    tolerances: ClassVar[Mapping[str, Tolerance]] = {
        "float32": EXACT,
        "int8": EIGHT_BIT,
    }

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """See `Exporter.write`."""
        model = build_model(source)
        with _suppress_warnings():
            if quantization == "int8":
                model = quantize(model)
            # Freezing makes a greedy search of FLAN-T5-small's shape in 8 bits 10 % faster.
            scripted = torch.jit.freeze(torch.jit.script(model), preserved_attrs=list(_PRESERVED))
            # Through memory, because torch's file writer aborts the process when the disk is full.
            buffer = io.BytesIO()
            torch.jit.save(scripted, buffer)
        (folder / MODEL_NAME).write_bytes(buffer.getbuffer())
        return {"threads": 1}


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def build_model(source: SourceModel) -> ScriptedT5:
    """The scriptable model with the source's weights, in float32 and eval mode."""
    shape = source.architecture
    with torch.device("meta"):  # no allocation and initialization that is overwritten below
        model = ScriptedT5(shape, pieces=source.pieces)
    weights = _Weights(source)
    model.shared = nn.Embedding.from_pretrained(weights("shared"))
    _set_bias(model.encoder.bias, encoder_bias_by_distance(source))
    _set(model.encoder.norm, weights("encoder.final_layer_norm"))
    for index, layer in enumerate(model.encoder.layers):
        _set_self_attention(layer.attention, weights, f"encoder.block.{index}.layer.0")
        _set_feed_forward(layer.feed_forward, weights, f"encoder.block.{index}.layer.1")
    _set_bias(model.bias, decoder_bias_by_distance(source))
    _set(model.norm, weights("decoder.final_layer_norm"))
    for index, layer in enumerate(model.layers):
        block = f"decoder.block.{index}.layer"
        _set_self_attention(layer.attention, weights, f"{block}.0")
        _set_cross_attention(layer.cross_attention, weights, f"{block}.1")
        _set_feed_forward(layer.feed_forward, weights, f"{block}.2")
    # A tied head is the same tensor, stored once in the file.
    _set(model.lm_head, model.shared.weight if shape.tied_head else weights("lm_head"))
    model.eval()
    return model


def quantize(model: ScriptedT5) -> ScriptedT5:
    """Quantize linear layers dynamically to 8 bits per output row, and the embedding per row.

    The encoder's wo stays in float32. Activations have one scale for all tokens, and those of wo
    have outliers. On 500 questions, 474 answers were the source's with wo in 8 bits in both stacks,
    491 with float32 in the encoder, and 490 with float32 in both (mean log-probability errors
    0.0065, 0.0047 and 0.0041). In the decoder float32 costs time at every token, as it does in
    lm_head, where it changed nothing.
    """
    from torch.ao import quantization as ao

    embedding = Int8Embedding(model.shared.weight.detach())
    layers = {
        name: ao.per_channel_dynamic_qconfig
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and not (name.startswith("encoder.") and name.endswith(".wo"))
    }
    quantized: ScriptedT5 = ao.quantize_dynamic(model, layers, dtype=torch.qint8)
    quantized.shared = embedding
    return quantized


class _Weights:
    """The source's weights by the name of their layer."""

    def __init__(self, source: SourceModel) -> None:
        self._source = source

    def __call__(self, *names: str) -> torch.Tensor:
        """One weight, or several concatenated along the output dimension."""
        tensors = [torch.from_numpy(self._source.tensor(f"{name}.weight")) for name in names]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _set(layer: nn.Module, weight: torch.Tensor) -> None:
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)


def _set_bias(bias: PositionBias, table: np.ndarray) -> None:
    bias.table = nn.Parameter(torch.from_numpy(table), requires_grad=False)


def _set_self_attention(layer: Any, weights: _Weights, name: str) -> None:
    attention = f"{name}.SelfAttention"
    _set(layer.norm, weights(f"{name}.layer_norm"))
    _set(layer.qkv, weights(f"{attention}.q", f"{attention}.k", f"{attention}.v"))
    _set(layer.o, weights(f"{attention}.o"))


def _set_cross_attention(layer: Any, weights: _Weights, name: str) -> None:
    attention = f"{name}.EncDecAttention"
    _set(layer.norm, weights(f"{name}.layer_norm"))
    _set(layer.q, weights(f"{attention}.q"))
    _set(layer.kv, weights(f"{attention}.k", f"{attention}.v"))
    _set(layer.o, weights(f"{attention}.o"))


def _set_feed_forward(layer: Any, weights: _Weights, name: str) -> None:
    dense = f"{name}.DenseReluDense"
    _set(layer.norm, weights(f"{name}.layer_norm"))
    gated = [f"{dense}.wi_0", f"{dense}.wi_1"]
    _set(layer.wi, weights(*(gated if layer.gated else [f"{dense}.wi"])))
    _set(layer.wo, weights(f"{dense}.wo"))
