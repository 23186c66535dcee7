"""The CTranslate2 exporter: CTranslate2's T5 loader, with two of its faults corrected.

1. The loader of CTranslate2 4.8.5 scales the logits of every model whose config says
   `tie_word_embeddings`. Under transformers 5 that is every T5. Here `SourceModel.architecture`
   decides.
2. It fills the vocabulary up with `<extra_id_…>`, names that a T5 tokenizer already has. Here every
   id gets a unique name, so that the folder also works with CTranslate2 alone (our engine does not
   use the names).

int16 and half-precision arithmetic are not offered, because CTranslate2's CPU backends refuse them
on most processors. float16 and bfloat16 only store the weights; the arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge.export.base import Exporter
from edge.export.quantization.grid import INTEGER_ROWS
from edge.export.quantization.rounding import quantize
from edge.export.source import SourceModel
from edge.export.tolerance import EIGHT_BIT, EXACT, HALF, Tolerance
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import ModelError, one_line
from edge.train.model.architecture import HEAD

# Storage type → compute type on a CPU.
_COMPUTE_TYPES = {
    "float32": "float32",
    "float16": "float32",
    "bfloat16": "float32",
    "int8": "int8_float32",
}


class CTranslate2Exporter(Exporter):
    """Writes model.bin, config.json and shared_vocabulary.json."""

    format = "ctranslate2"
    quantizations: ClassVar[Mapping[str, str]] = {
        "float32": "no quantization",
        "int8": "8-bit weights and matrix products, per output row; the rest in float32",
        "float16": "weights stored in 16 bits, computed in float32",
        "bfloat16": "weights stored in bfloat16, computed in float32",
    }
    full_precision: ClassVar[Collection[str]] = ("float32", "float16", "bfloat16")
    auto = "int8"
    aliases: ClassVar[Mapping[str, str]] = {
        "none": "float32",
        "fp32": "float32",
        "fp16": "float16",
        "bf16": "bfloat16",
        "int8_float32": "int8",
    }
    tolerances: ClassVar[Mapping[str, Tolerance]] = {
        "float32": EXACT,
        "int8": EIGHT_BIT,
        "float16": HALF,
        "bfloat16": HALF,
    }

    @classmethod
    def check_architecture(cls, source: SourceModel) -> None:
        """See `Exporter.check_architecture`.

        Raises:
            ModelError: one head of another width than the model's, which CTranslate2 4.8.5 takes
                for one that needs no projection.
        """
        super().check_architecture(source)
        shape = source.architecture
        if shape.num_heads == 1 and shape.inner_dim != shape.d_model:
            raise ModelError(
                f"{source.name}: CTranslate2 can't run one head of another width (d_kv"
                f" {shape.d_kv}) than the model's (d_model {shape.d_model}). Use --format onnx,"
                " gguf or torchscript"
            )

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """See `Exporter.write`.

        Raises:
            ModelError: CTranslate2 can't represent this model.
        """
        spec = _specification(source)
        tokens = vocabulary_tokens(source)
        spec.register_source_vocabulary(tokens)
        spec.register_target_vocabulary(tokens)
        _configure(spec, source, tokens)
        try:
            spec.validate()
            spec.optimize(quantization=quantization)
            if quantization == "int8":
                _quantize_linear(spec, source)
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{source.folder}: CTranslate2 can't represent this model ({one_line(error)})"
            ) from error
        spec.save(str(folder))
        return {"threads": 1, "compute_type": _COMPUTE_TYPES[quantization]}


def _specification(source: SourceModel) -> Any:
    """CTranslate2's description of the model, filled with the weights.

    Built from a new model: quantization works in place on memory that the loader shares with the
    model's tensors.
    """
    from ctranslate2.converters import transformers as loaders

    shape = source.architecture
    loader = loaders.MT5Loader() if shape.model_type == "mt5" else loaders.T5Loader()
    spec = loader.get_model_spec(source.build_torch_model())
    if shape.scale_decoder_outputs:
        spec.decoder.scale_outputs = shape.d_model**-0.5
    else:
        from ctranslate2.specs.model_spec import OPTIONAL

        spec.decoder.scale_outputs = OPTIONAL
    return spec


def _quantize_linear(spec: Any, source: SourceModel) -> None:
    """Replace CTranslate2's 8-bit linear weights by rows whose products don't saturate.

    CTranslate2 multiplies unsigned activations by signed weights. On a processor without VNNI
    instructions the sums of two products saturate at 16 bits: on Disfl-QA, 94 % of a model's
    answers stayed the same with CTranslate2's own weights and 98 % with `INTEGER_ROWS`.
    """
    from ctranslate2.specs.model_spec import NumpyVariable

    for linear, names in _linear_layers(spec, source.architecture):
        weight = np.concatenate([source.tensor(name) for name in names])
        values, scales = quantize(weight, INTEGER_ROWS, source.input_moments(names[0]))
        steps = np.where(scales[:, 0] == 0, 1, scales[:, 0])
        linear.weight = NumpyVariable(np.ascontiguousarray(values[:, 0]))
        linear.weight_scale = NumpyVariable((1 / steps).astype(np.float32))


def _linear_layers(spec: Any, shape: Architecture) -> Iterator[tuple[Any, list[str]]]:
    """Linear layers of the specification and the weights that each concatenates."""
    for stack, layers in (("encoder", spec.encoder.layer), ("decoder", spec.decoder.layer)):
        for index, layer in enumerate(layers):
            block = f"{stack}.block.{index}.layer"
            attention = f"{block}.0.SelfAttention"
            yield layer.self_attention.linear[0], [f"{attention}.{p}.weight" for p in "qkv"]
            yield layer.self_attention.linear[1], [f"{attention}.o.weight"]
            if stack == "decoder":
                cross = f"{block}.1.EncDecAttention"
                yield layer.attention.linear[0], [f"{cross}.q.weight"]
                yield layer.attention.linear[1], [f"{cross}.{p}.weight" for p in "kv"]
                yield layer.attention.linear[2], [f"{cross}.o.weight"]
            dense = f"{block}.{1 if stack == 'encoder' else 2}.DenseReluDense"
            if shape.is_gated_act:
                yield layer.ffn.linear_0, [f"{dense}.wi_0.weight"]
                yield layer.ffn.linear_0_noact, [f"{dense}.wi_1.weight"]
            else:
                yield layer.ffn.linear_0, [f"{dense}.wi.weight"]
            yield layer.ffn.linear_1, [f"{dense}.wo.weight"]
    if not shape.tied_head:  # a tied head shares the embedding's 8-bit rows
        yield spec.decoder.projection, [HEAD]


def _configure(spec: Any, source: SourceModel, tokens: list[str]) -> None:
    """Set the parts of config.json that affect the computation."""
    shape = source.architecture
    config = spec.config
    config.eos_token = tokens[shape.eos_token_id]
    config.bos_token = tokens[shape.decoder_start_token_id]
    config.decoder_start_token = tokens[shape.decoder_start_token_id]
    # CTranslate2 adds a missing token to the vocabulary, so unk must be an existing one.
    config.unk_token = "<unk>" if "<unk>" in tokens else tokens[shape.pad_token_id]
    config.layer_norm_epsilon = shape.layer_norm_epsilon


def vocabulary_tokens(source: SourceModel) -> list[str]:
    """A unique name for each of the vocab_size ids: the tokenizer's piece, or a made-up name."""
    from tokenizers import Tokenizer

    with source.tokenizer_folder() as folder:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_NAME))
    pieces = [tokenizer.id_to_token(token) for token in range(source.architecture.vocab_size)]
    known = {piece for piece in pieces if piece is not None}
    seen: set[str] = set()
    names: list[str] = []
    for token, piece in enumerate(pieces):
        name = piece if piece and piece not in seen else f"<no_piece_{token}>"
        while name in seen or (name in known and name != piece):
            name = f"<{name}>"
        seen.add(name)
        names.append(name)
    return names
