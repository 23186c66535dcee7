"""The GGUF exporter: one file with weights, shape and vocabulary, quantized by llama.cpp."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, LlamaFileType, get_tensor_name_map

from edge.export.base import Exporter
from edge.export.gguf.blocks import Calibrated, compensate_file
from edge.export.gguf.position_buckets import BiasTables, bias_tables
from edge.export.gguf.quantizer import FOUR_BITS, quantize_file, require_range, unfit_rows
from edge.export.gguf.vocabulary import read_vocabulary
from edge.export.quantization.sensitivity import kept_weights
from edge.export.source import SourceModel
from edge.export.tolerance import EIGHT_BIT, FOUR_BIT, HALF, Tolerance
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.compatibility import POSITION_LIMIT
from edge.runtime.errors import EdgeError, ModelError
from edge.runtime.platform.os_errors import readable_os_errors
from edge.train.model.architecture import expected_shapes

MODEL_NAME = "model.gguf"
_UNQUANTIZED_NAME = "unquantized.gguf"
_CONTEXT_LENGTH = 512  # tokens, as in T5's training; only a hint to other tools
_BIAS = "relative_attention_bias.weight"
_FINAL_NORM = "decoder.final_layer_norm.weight"
# The activations of llama.cpp's T5 graph: (is_gated_act, dense_act_fn).
_ACTIVATIONS = ((True, "gelu_new"), (False, "relu"))
_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
}
_UNQUANTIZED = ("f32", "f16")


class GgufExporter(Exporter):
    """Writes `model.gguf`."""

    format = "gguf"
    quantizations: ClassVar[Mapping[str, str]] = {
        "f32": "32-bit floats",
        "f16": "16-bit floats (the feed-forward output stays at 32 bits)",
        "q8_0": "8 bits in blocks of 32",
        "q4_0": "4 bits in blocks of 32",
        "q4_k_m": "4 to 6 bits in blocks of 256, more for the more important weights",
    }
    full_precision: ClassVar[Collection[str]] = _UNQUANTIZED
    auto = "q8_0"
    candidates: ClassVar[Sequence[str]] = ("q4_k_m", "q8_0")
    aliases: ClassVar[Mapping[str, str]] = {
        "none": "f32",
        "fp32": "f32",
        "float32": "f32",
        "fp16": "f16",
        "float16": "f16",
        "int8": "q8_0",
        "int4": "q4_k_m",
    }
    higher_precision: ClassVar[Mapping[str, str]] = {"q4_0": "q8_0", "q4_k_m": "q8_0"}
    # Measured with a trained model of 1.8 M parameters on 997 rows of Disfl-QA: mean and largest
    # log-probability error, identical greedy answers. The limits leave a wide margin.
    #   f32     1.0e-5  1.8e-3  997     all but 1.5e-4 comes from llama.cpp's float16 table of gelu
    #   f16     5.3e-5  9.6e-3  997
    #   q8_0    1.2e-3  0.22    987
    #   q4_0    1.1e-2  2.4     932
    #   q4_k_m  6.3e-3  1.1     954
    # Inputs unlike the training data give means three times as large.
    tolerances: ClassVar[Mapping[str, Tolerance]] = {
        "f32": Tolerance(greedy=True, max_error=5e-2, mean_error=5e-3),
        "f16": HALF,
        "q8_0": EIGHT_BIT,
        "q4_0": FOUR_BIT,
        "q4_k_m": FOUR_BIT,
    }

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """See `Exporter.write`. Quantization temporarily needs disk space for a float32 file.

        Raises:
            ModelError: a weight is not finite, or too large for the blocks' scales.
            EdgeError: the disk is full, or llama.cpp can't quantize the model.
        """
        target = folder / MODEL_NAME
        with readable_os_errors(folder):
            if quantization in _UNQUANTIZED:
                _write_file(source, quantization, target)
                return {}
            unquantized = folder / _UNQUANTIZED_NAME
            try:
                _write_file(source, "f32", unquantized, for_blocks=True)
                quantize_file(
                    unquantized,
                    target,
                    _FILE_TYPES[quantization],
                    _importance(source),
                    _precise(source) if _FILE_TYPES[quantization] in FOUR_BITS else {},
                    source.architecture.d_model,
                )
                compensate_file(target, _calibrated(source))
            finally:
                unquantized.unlink(missing_ok=True)
        return {}

    @classmethod
    def check_architecture(cls, source: SourceModel) -> None:
        """See `Exporter.check_architecture`.

        Raises:
            ModelError: llama.cpp does not support this model's activation.
        """
        super().check_architecture(source)
        shape = source.architecture
        if (shape.is_gated_act, shape.dense_act_fn) not in _ACTIVATIONS:
            gated = "gated " if shape.is_gated_act else ""
            raise ModelError(
                f"{source.name}: llama.cpp supports T5 with relu or gated gelu_new only, not with"
                f" {gated}{shape.dense_act_fn}. Use --format onnx, ctranslate2 or torchscript"
            )

    @classmethod
    def notes(cls, source: SourceModel, quantization: str) -> tuple[str, ...]:
        """See `Exporter.notes`: matrices that the blocks don't fit."""
        sizes = expected_shapes(source.architecture)
        widths = [
            size[1] for name, size in sizes.items() if len(size) == 2 and not name.endswith(_BIAS)
        ]
        return unfit_rows(widths) if cls.is_quantized(quantization) else ()


# -- writing ------------------------------------------------------------------------------------


def _write_file(
    source: SourceModel, quantization: str, path: Path, *, for_blocks: bool = False
) -> None:
    """Write the whole file, one tensor in memory at a time.

    With `for_blocks`, weights that the scales of blocks can't hold are refused.
    """
    shape = source.architecture
    bias = bias_tables(shape, *(source.tensor(name) for name in _bias_names()))
    weights = expected_shapes(_pad_encoder(shape))
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[MODEL_ARCH.T5])
    try:
        _add_shape(writer, shape, bias)
        writer.add_name(source.name)
        writer.add_file_type(_FILE_TYPES[quantization])
        _add_vocabulary(writer, source)
        for name, gguf_name in _tensor_names(weights):
            size = bias.encoder.shape if name.endswith(_BIAS) else weights[name]
            dtype = _dtype(name, len(size), quantization)
            writer.add_tensor_info(gguf_name, size, dtype, int(np.prod(size)) * dtype.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, size in weights.items():
            values = _values(source, name, size, bias)
            if for_blocks:
                require_range(values, name, source.name)
            dtype = _dtype(name, values.ndim, quantization)
            writer.write_tensor_data(_finite(values.astype(dtype), name, source))
    except OSError as error:
        if error.errno is not None:
            raise
        # numpy's tofile reports a full disk as "… requested and … written", without an errno.
        raise EdgeError(f"{path.parent}: no space left on the disk ({error})") from error
    finally:
        writer.close()


def _add_shape(writer: GGUFWriter, shape: Architecture, bias: BiasTables) -> None:
    writer.add_context_length(min(_CONTEXT_LENGTH, bias.longest or _CONTEXT_LENGTH))
    writer.add_embedding_length(shape.d_model)
    writer.add_feed_forward_length(shape.d_ff)
    writer.add_block_count(_pad_encoder(shape).num_layers)
    writer.add_decoder_block_count(shape.num_decoder_layers)
    writer.add_head_count(shape.num_heads)
    writer.add_key_length(shape.d_kv)
    writer.add_value_length(shape.d_kv)
    writer.add_layer_norm_eps(shape.layer_norm_epsilon)
    writer.add_layer_norm_rms_eps(shape.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(bias.buckets)
    writer.add_decoder_start_token_id(shape.decoder_start_token_id)
    if bias.longest is not None:
        writer.add_uint32(POSITION_LIMIT, bias.longest)


def _add_vocabulary(writer: GGUFWriter, source: SourceModel) -> None:
    shape = source.architecture
    ids = {"eos": shape.eos_token_id, "pad": shape.pad_token_id}
    with source.tokenizer_folder() as folder:
        vocabulary = read_vocabulary(folder / TOKENIZER_NAME, shape.vocab_size, **ids)
    if vocabulary is not None:
        vocabulary.add_to(writer, **ids)
        return
    # llama.cpp's T5 tokenizer is Unigram only; a wrong vocabulary would mislead its tools.
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(shape.vocab_size)


def _bias_names() -> tuple[str, str]:
    return (
        f"encoder.block.0.layer.0.SelfAttention.{_BIAS}",
        f"decoder.block.0.layer.0.SelfAttention.{_BIAS}",
    )


def _pad_encoder(shape: Architecture) -> Architecture:
    """The shape with an encoder at least as deep as the decoder.

    llama.cpp's cache has as many layers as the encoder, so it can't load a deeper decoder. The
    added blocks hold zeros, so that they add nothing to the residual stream.
    """
    return dataclasses.replace(shape, num_layers=max(shape.num_layers, shape.num_decoder_layers))


def _is_padding(name: str, shape: Architecture) -> bool:
    stack, _, rest = name.partition(".block.")
    return stack == "encoder" and bool(rest) and int(rest.split(".")[0]) >= shape.num_layers


def _tensor_names(weights: Iterable[str]) -> Iterator[tuple[str, str]]:
    """State-dict name and GGUF name of every weight in the file."""
    blocks = [int(name.split(".")[2]) for name in weights if ".block." in name]
    table = get_tensor_name_map(MODEL_ARCH.T5, max(blocks) + 1)
    for name in weights:
        found = table.get_name(name, try_suffixes=(".weight",))
        if found is None:
            raise EdgeError(f"gguf has no name for {name}. Install gguf 0.19 or newer")
        yield name, found


def _dtype(name: str, dimensions: int, quantization: str) -> np.dtype[Any]:
    """The data type of a weight in the file before quantization."""
    # Activations of `wo` exceed float16's range: transformers keeps it in float32, too.
    wide = name.endswith((_BIAS, ".wo.weight"))
    small = quantization == "f16" and dimensions == 2 and not wide
    return np.dtype(np.float16 if small else np.float32)


def _values(source: SourceModel, name: str, size: tuple[int, ...], bias: BiasTables) -> np.ndarray:
    shape = source.architecture
    if name.endswith(_BIAS):
        return bias.encoder if name.startswith("encoder") else bias.decoder
    if _is_padding(name, shape):
        return np.zeros(size, dtype=np.float32)
    values = source.tensor(name)
    if name == _FINAL_NORM and shape.scale_decoder_outputs:
        # llama.cpp never scales the decoder's outputs. The factor goes into the last norm, which
        # only the head follows, so that a tied head needs no separate copy.
        values = values * np.float32(shape.d_model**-0.5)
    return values


def _finite(values: np.ndarray, name: str, source: SourceModel) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ModelError(
            f"{source.name}: {name} holds values that are not finite in {values.dtype}"
        )
    return np.ascontiguousarray(values)


def _importance(source: SourceModel) -> dict[str, np.ndarray]:
    """llama.cpp's importance matrix: GGUF name → mean square of each input, float32 [in].

    Empty if the source was not calibrated.
    """
    importance: dict[str, np.ndarray] = {}
    for name, gguf_name in _tensor_names(expected_shapes(source.architecture)):
        moments = source.input_moments(name)
        if moments is not None:
            importance[gguf_name] = np.ascontiguousarray(np.diag(moments), dtype=np.float32)
    return importance


def _calibrated(source: SourceModel) -> Calibrated:
    """The weights of a matrix and the moments of its inputs, where these are known."""
    names = {gguf: name for name, gguf in _tensor_names(expected_shapes(source.architecture))}

    def weights_and_moments(gguf_name: str) -> tuple[np.ndarray, np.ndarray] | None:
        name = names.get(gguf_name, "")
        moments = source.input_moments(name)
        return None if moments is None else (source.tensor(name), moments)

    return weights_and_moments


def _precise(source: SourceModel) -> dict[str, int]:
    """GGUF name → row width of the matrices that keep more than 4 bits."""
    weights, kept = expected_shapes(source.architecture), kept_weights(source)
    return {gguf: weights[name][1] for name, gguf in _tensor_names(weights) if name in kept}
