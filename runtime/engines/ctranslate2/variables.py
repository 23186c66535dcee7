"""Checks of the variables of a model.bin against the artifact's manifest.

Every variable that a T5 has in CTranslate2 is known by name, shape and type, and every setting by
value. Others are refused: many of them index memory or select code in the library. The names are
those of `ctranslate2.specs.TransformerSpec` as CTranslate2's T5 converter fills it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.runtime.artifact.manifest import Architecture, Manifest
from edge.runtime.engines.ctranslate2.model_file import ModelFile, Variable
from edge.runtime.errors import ArtifactError

_SPECIFICATION, _REVISION = "TransformerSpec", 7
_WEIGHT_TYPES = ("float32", "float16", "bfloat16", "int8")  # also the names of the quantizations
_CHUNK = 1 << 22  # values that are checked at once
# ctranslate2.specs.Activation
_ACTIVATIONS = {
    "relu": 0,
    "gelu_new": 1,
    "gelu_fast": 1,
    "gelu_pytorch_tanh": 1,
    "silu": 2,
    "swish": 2,
    "gelu": 3,
    "gelu_python": 3,
    "quick_gelu": 4,
}
_ENCODER_FLAGS = {
    "embeddings_merge": 0,
    "multi_query_attention": 0,
    "pre_norm": 1,
    "scale_embeddings": 0,
}
_DECODER_FLAGS = {
    "alibi": 0,
    "alibi_use_positive_positions": 0,
    "pre_norm": 1,
    "scale_alibi": 0,
    "scale_embeddings": 0,
    "start_from_zero_embedding": 0,
}


@dataclass(frozen=True)
class _Tensor:
    """Weights; `quantized` ones are stored in the artifact's quantization."""

    shape: tuple[int, ...]
    quantized: bool = False


@dataclass(frozen=True)
class _Setting:
    """A scalar that must have this value."""

    type: str
    value: float


_Named = tuple[str, _Tensor | _Setting]


def check_variables(model: ModelFile, manifest: Manifest, path: str | Path) -> None:
    """Check a model file against the manifest.

    Args:
        model: The file's content.
        manifest: The artifact's manifest.
        path: The file, for error messages.

    Raises:
        ArtifactError: Another kind of model, or a variable that is missing, unknown, or of another
            shape, type or value.
    """

    def fail(what: str) -> ArtifactError:
        return ArtifactError(f"{path}: {what}; export it again")

    if (model.specification, model.revision) != (_SPECIFICATION, _REVISION):
        raise fail(
            f"it holds a {model.specification!r:.80} of revision {model.revision},"
            f" not a {_SPECIFICATION} of revision {_REVISION}"
        )
    if manifest.quantization not in _WEIGHT_TYPES:
        raise fail(f"the quantization {manifest.quantization!r:.40} does not exist")
    shape = manifest.architecture
    if shape.dense_act_fn not in _ACTIVATIONS:
        raise fail(f"the activation {shape.dense_act_fn!r:.40} does not exist")
    allowed = dict(_expected(shape))
    seen = set()
    for name, expected in allowed.items():
        variable = model.variables.get(model.aliases.get(name, name))
        if variable is None:
            raise fail(f"variable {name} is missing")
        seen.add(name)
        if isinstance(expected, _Setting):
            _check_setting(name, variable, expected, fail)
            continue
        _check_tensor(name, variable, expected, manifest.quantization, fail)
        if expected.quantized and manifest.quantization == "int8":
            # An alias of a quantized variable is also one of its scale.
            scale = f"{model.aliases.get(name, name)}_scale"
            if scale not in model.variables:
                raise fail(f"variable {scale} is missing")
            if name not in model.aliases:
                seen.add(scale)
                _check_scale(scale, model.variables[scale], expected.shape[0], fail)
            elif model.aliases[name] not in allowed:
                raise fail(f"{name} is an alias of {model.aliases[name]}")
    unknown = sorted({*model.variables, *model.aliases} - seen)
    if unknown:
        raise fail(f"unexpected variable {unknown[0]!r}")


def _expected(shape: Architecture) -> Iterator[_Named]:
    """All variables of a model of this shape."""
    embedding = _Tensor((shape.vocab_size, shape.d_model), quantized=True)
    yield "encoder/embeddings_0/weight", embedding
    yield "decoder/embeddings/weight", embedding
    yield "decoder/projection/weight", embedding
    for name, value in _ENCODER_FLAGS.items():
        yield f"encoder/{name}", _Setting("int8", value)
    for name, value in _DECODER_FLAGS.items():
        yield f"decoder/{name}", _Setting("int8", value)
    yield "decoder/alignment_heads", _Setting("int16", 1)
    yield "decoder/alignment_layer", _Setting("int16", -1)
    if shape.scale_decoder_outputs:
        yield "decoder/scale_outputs", _Setting("float32", shape.d_model**-0.5)
    for stack, layers in (("encoder", shape.num_layers), ("decoder", shape.num_decoder_layers)):
        yield f"{stack}/activation", _Setting("int8", _ACTIVATIONS[shape.dense_act_fn])
        yield f"{stack}/num_heads", _Setting("int16", shape.num_heads)
        yield f"{stack}/layer_norm/gamma", _Tensor((shape.d_model,))
        for layer in range(layers):
            yield from _layer(f"{stack}/layer_{layer}", shape, is_decoder=stack == "decoder")


def _layer(prefix: str, shape: Architecture, *, is_decoder: bool) -> Iterator[_Named]:
    width, inner = shape.d_model, shape.inner_dim
    norm = _Tensor((width,))

    def linear(name: str, outputs: int, inputs: int) -> _Named:
        return f"{prefix}/{name}/weight", _Tensor((outputs, inputs), quantized=True)

    yield f"{prefix}/self_attention/layer_norm/gamma", norm
    yield linear("self_attention/linear_0", 3 * inner, width)
    yield linear("self_attention/linear_1", width, inner)
    yield f"{prefix}/self_attention/queries_scale", _Setting("float32", 1)
    buckets, distance = shape.relative_attention_num_buckets, shape.relative_attention_max_distance
    bias = _Tensor((buckets, shape.num_heads))
    yield f"{prefix}/self_attention/relative_attention_bias", bias
    yield (
        f"{prefix}/self_attention/relative_attention_max_distance",
        _Setting("int32", distance),
    )
    if is_decoder:
        yield f"{prefix}/attention/layer_norm/gamma", norm
        yield linear("attention/linear_0", inner, width)
        yield linear("attention/linear_1", 2 * inner, width)
        yield linear("attention/linear_2", width, inner)
        yield f"{prefix}/attention/queries_scale", _Setting("float32", 1)
    yield f"{prefix}/ffn/layer_norm/gamma", norm
    yield linear("ffn/linear_0", shape.d_ff, width)
    if shape.is_gated_act:
        yield linear("ffn/linear_0_noact", shape.d_ff, width)
    yield linear("ffn/linear_1", width, shape.d_ff)


def _check_setting(
    name: str, variable: Variable, expected: _Setting, fail: Callable[[str], ArtifactError]
) -> None:
    if variable.shape != () or variable.type != expected.type:
        raise fail(f"{name} is {variable.type}{list(variable.shape)}, not one {expected.type}")
    value = float(np.frombuffer(variable.data, np.dtype(expected.type).newbyteorder("<"))[0])
    if not math.isclose(value, expected.value, rel_tol=1e-6):
        raise fail(f"{name} is {value:g}, must be {expected.value:g}")


def _check_tensor(
    name: str,
    variable: Variable,
    expected: _Tensor,
    quantization: str,
    fail: Callable[[str], ArtifactError],
) -> None:
    is_int8 = quantization == "int8"
    wanted = "float32" if is_int8 and not expected.quantized else quantization
    if variable.shape != expected.shape or variable.type != wanted:
        raise fail(
            f"{name} is {variable.type}{list(variable.shape)},"
            f" must be {wanted}{list(expected.shape)}"
        )
    if wanted != "int8" and not _all_finite(variable):
        raise fail(f"{name} has values that are not finite")


def _check_scale(
    name: str, variable: Variable, rows: int, fail: Callable[[str], ArtifactError]
) -> None:
    if variable.shape != (rows,) or variable.type != "float32":
        raise fail(f"{name} is {variable.type}{list(variable.shape)}, must be float32[{rows}]")
    values = np.frombuffer(variable.data, "<f4")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise fail(f"{name} has values that are not finite and positive")


def _all_finite(variable: Variable) -> bool:
    """Whether no value of a floating-point variable is infinite or not a number."""
    if variable.type == "bfloat16":  # numpy has no such type
        bits = np.frombuffer(variable.data, "<u2")
        return all(
            bool(((bits[start : start + _CHUNK] & 0x7F80) != 0x7F80).all())
            for start in range(0, len(bits), _CHUNK)
        )
    values = np.frombuffer(variable.data, "<f4" if variable.type == "float32" else "<f2")
    return all(
        bool(np.isfinite(values[start : start + _CHUNK]).all())
        for start in range(0, len(values), _CHUNK)
    )
