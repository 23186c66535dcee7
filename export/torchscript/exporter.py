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

from edge.export.base import Exporter
from edge.export.position_bias import decoder_bias_by_distance, encoder_bias_by_distance
from edge.export.quantization.grid import INTEGER_ROWS
from edge.export.quantization.rounding import quantize
from edge.export.source import SourceModel
from edge.export.tolerance import EIGHT_BIT, EXACT, Tolerance
from edge.export.torchscript.layers import Int8Embedding, PositionBias, RowInt8Linear
from edge.export.torchscript.model import ScriptedT5
from edge.runtime.platform.memory import give_back_free_memory
from edge.train.model.architecture import HEAD

MODEL_NAME = "model.ts"
# Methods and attributes that callers of the file use, besides forward.
_PRESERVED = ("encode", "step", "greedy", "pad", "ends", "start", "pieces")


class TorchScriptExporter(Exporter):
    """Writes model.ts, with the methods encode, step and greedy of `ScriptedT5`."""

    format = "torchscript"
    quantizations: ClassVar[Mapping[str, str]] = {
        "float32": "no quantization",
        "int8": "8-bit weights per output row, 8-bit activations per token",
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
        with _suppress_warnings():
            model = _quantized(source) if quantization == "int8" else build_model(source)
            give_back_free_memory()  # freezing copies the weights
            # Freezing makes a greedy search of FLAN-T5-small's shape in 8 bits 10 % faster.
            scripted = torch.jit.freeze(torch.jit.script(model), preserved_attrs=list(_PRESERVED))
            # Through memory, because torch's file writer aborts the process when the disk is full.
            buffer = io.BytesIO()
            torch.jit.save(scripted, buffer)
        (folder / MODEL_NAME).write_bytes(buffer.getbuffer())
        return {"threads": 1}


def _quantized(source: SourceModel) -> ScriptedT5:
    weights = _Weights(source)  # refers to the float32 layers
    # Measuring the decoder takes most memory, so it comes before there are layers.
    source.input_moments(HEAD)
    return quantize_linear(build_model(source, weights), weights)


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def build_model(source: SourceModel, weights: _Weights | None = None) -> ScriptedT5:
    """The scriptable model with the source's weights, in float32 and eval mode."""
    shape = source.architecture
    with torch.device("meta"):  # no allocation and initialization that is overwritten below
        model = ScriptedT5(shape, pieces=source.pieces)
    weights = weights or _Weights(source)
    model.shared = nn.Embedding.from_pretrained(weights("shared"))
    _set_bias(model.encoder.bias, encoder_bias_by_distance(source))
    weights.set(model.encoder.norm, "encoder.final_layer_norm")
    for index, layer in enumerate(model.encoder.layers):
        _set_self_attention(layer.attention, weights, f"encoder.block.{index}.layer.0")
        _set_feed_forward(layer.feed_forward, weights, f"encoder.block.{index}.layer.1")
    _set_bias(model.bias, decoder_bias_by_distance(source))
    weights.set(model.norm, "decoder.final_layer_norm")
    for index, layer in enumerate(model.layers):
        block = f"decoder.block.{index}.layer"
        _set_self_attention(layer.attention, weights, f"{block}.0")
        _set_cross_attention(layer.cross_attention, weights, f"{block}.1")
        _set_feed_forward(layer.feed_forward, weights, f"{block}.2")
    # A tied head is the same tensor, stored once in the file.
    if shape.tied_head:
        set_weight(model.lm_head, model.shared.weight)
    else:
        weights.set(model.lm_head, "lm_head")
    model.eval()
    return model


def quantize_linear(model: ScriptedT5, weights: _Weights) -> ScriptedT5:
    """Replace linear layers by `RowInt8Linear`, and the embedding by `Int8Embedding`."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                values, scales = quantize(
                    layer.weight.numpy(), INTEGER_ROWS, weights.input_moments(layer)
                )
                setattr(parent, name, RowInt8Linear(values[:, 0], scales[:, 0]))
    model.shared = Int8Embedding(model.shared.weight.detach())
    return model


class _Weights:
    """The source's weights by the name of their layer."""

    def __init__(self, source: SourceModel) -> None:
        self._source = source
        self._read: dict[nn.Linear, str] = {}

    def set(self, layer: nn.Module, *names: str) -> None:
        """Give a layer its weight: one, or several concatenated along the output dimension."""
        set_weight(layer, self(*names))
        if isinstance(layer, nn.Linear):
            self._read[layer] = f"{names[0]}.weight"

    def input_moments(self, layer: nn.Linear) -> np.ndarray | None:
        """Second moments of what a layer reads; None where they are unknown, as for a tied head."""
        name = self._read.get(layer)
        return self._source.input_moments(name) if name is not None else None

    def __call__(self, *names: str) -> torch.Tensor:
        """One weight, or several concatenated along the output dimension."""
        tensors = [torch.from_numpy(self._source.tensor(f"{name}.weight")) for name in names]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def set_weight(layer: nn.Module, weight: torch.Tensor) -> None:
    """Set a layer's weight, without a gradient."""
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)


def _set_bias(bias: PositionBias, table: np.ndarray) -> None:
    bias.table = nn.Parameter(torch.from_numpy(table), requires_grad=False)


def _set_self_attention(layer: Any, weights: _Weights, name: str) -> None:
    attention = f"{name}.SelfAttention"
    weights.set(layer.norm, f"{name}.layer_norm")
    weights.set(layer.qkv, f"{attention}.q", f"{attention}.k", f"{attention}.v")
    weights.set(layer.o, f"{attention}.o")


def _set_cross_attention(layer: Any, weights: _Weights, name: str) -> None:
    attention = f"{name}.EncDecAttention"
    weights.set(layer.norm, f"{name}.layer_norm")
    weights.set(layer.q, f"{attention}.q")
    weights.set(layer.kv, f"{attention}.k", f"{attention}.v")
    weights.set(layer.o, f"{attention}.o")


def _set_feed_forward(layer: Any, weights: _Weights, name: str) -> None:
    dense = f"{name}.DenseReluDense"
    weights.set(layer.norm, f"{name}.layer_norm")
    gated = [f"{dense}.wi_0", f"{dense}.wi_1"]
    weights.set(layer.wi, *(gated if layer.gated else [f"{dense}.wi"]))
    weights.set(layer.wo, f"{dense}.wo")
