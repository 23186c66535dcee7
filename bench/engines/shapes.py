"""Model shapes, and Hugging Face model folders of these shapes with random weights.

The speed of an engine depends on the shape, not on training. The answers are noise.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.registry import unknown_name
from edge.train.model.architecture import expected_shapes

PIECES = 32_100  # in T5's tokenizer; its models have 32,128 ids
_VOCABULARY = 32_128
# Small embeddings and a large final norm, or a tied head would repeat the decoder's input.
_TIED_SCALE = 0.1


def _t5(**changes: Any) -> Architecture:
    """FLAN-T5's family (T5 v1.1): gated gelu, untied head, unscaled outputs; with `changes`."""
    values: dict[str, Any] = {
        "model_type": "t5",
        "vocab_size": _VOCABULARY,
        "d_kv": 64,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "tied_head": False,
        "scale_decoder_outputs": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        **changes,
    }
    return Architecture(**values)


SHAPES: dict[str, Architecture] = {
    "flan-t5-small": _t5(d_model=512, num_heads=6, d_ff=1024, num_layers=8, num_decoder_layers=8),
    "flan-t5-base": _t5(d_model=768, num_heads=12, d_ff=2048, num_layers=12, num_decoder_layers=12),
    "flan-t5-large": _t5(
        d_model=1024, num_heads=16, d_ff=2816, num_layers=24, num_decoder_layers=24
    ),
    # T5 v1.0: relu without a gate, tied head with scaled inputs.
    "t5-small": _t5(
        d_model=512,
        num_heads=8,
        d_ff=2048,
        num_layers=6,
        num_decoder_layers=6,
        dense_act_fn="relu",
        is_gated_act=False,
        tied_head=True,
        scale_decoder_outputs=True,
    ),
}


def shape_of(name: str) -> Architecture:
    """The shape called `name`.

    Raises:
        UsageError: an unknown name.
    """
    if name not in SHAPES:
        raise UsageError(unknown_name("architecture", name, tuple(SHAPES)))
    return SHAPES[name]


def write_model(
    shape: Architecture,
    folder: str | Path,
    *,
    seed: int = 0,
    tokenizer_json: str | Path | None = None,
) -> Path:
    """Write a Hugging Face model folder with random weights, the same for the same seed.

    Args:
        shape: of the model.
        folder: where it is written.
        seed: of the weights.
        tokenizer_json: a tokenizer to copy; by default one with made-up pieces of up to three
            letters, which splits a text into more tokens than T5's.

    Raises:
        UsageError: a shape that config.json can't express, or a tokenizer with more pieces than the
            shape has ids.
        ArtifactError: `tokenizer_json` is not a tokenizer.
        OutputExistsError: `folder` exists.
    """
    config = _config(shape)
    with new_folder(folder, force=False) as staging:
        _write_json(staging / "config.json", config)
        _write_json(staging / "generation_config.json", _generation(shape))
        if tokenizer_json is None:
            _write_tokenizer(staging, min(PIECES, shape.vocab_size))
        else:
            _copy_tokenizer(Path(tokenizer_json), staging, shape)
        _write_weights(shape, staging / "model.safetensors", seed)
    return Path(folder)


def _config(shape: Architecture) -> dict[str, Any]:
    """config.json as transformers 4 writes it; 5 reads it too, and baselines use either."""
    if shape.scale_decoder_outputs is not shape.tied_head:
        raise UsageError(
            "scale_decoder_outputs must equal tied_head: config.json has one field for both"
        )
    function = shape.dense_act_fn
    if shape.is_gated_act:
        function = "gated-gelu" if function == "gelu_new" else f"gated-{function}"
    values = dataclasses.asdict(shape)
    for name in ("dense_act_fn", "is_gated_act", "tied_head", "scale_decoder_outputs"):
        del values[name]
    return {
        **values,
        "architectures": ["T5ForConditionalGeneration"],
        "dropout_rate": 0.0,
        "feed_forward_proj": function,
        "is_encoder_decoder": True,
        "tie_word_embeddings": shape.tied_head,
        "use_cache": True,
    }


def _generation(shape: Architecture) -> dict[str, Any]:
    names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(shape, name) for name in names}


def _write_weights(shape: Architecture, path: Path, seed: int) -> None:
    from safetensors.numpy import save_file

    tensors = {}
    for place, (name, size) in enumerate(expected_shapes(shape).items()):
        # A separate random stream for each tensor: their order does not matter.
        generator = np.random.default_rng((seed, place))
        if name.endswith("layer_norm.weight"):
            tensors[name] = np.full(size, _norm(shape, name), np.float32)
        else:
            weight = generator.standard_normal(size, dtype=np.float32)
            tensors[name] = weight * np.float32(_scale(shape, name, size))
    save_file(tensors, path, metadata={"format": "pt"})


def _norm(shape: Architecture, name: str) -> float:
    undo_scale = shape.tied_head and name == "decoder.final_layer_norm.weight"
    return 1 / _TIED_SCALE if undo_scale else 1.0


def _scale(shape: Architecture, name: str, size: tuple[int, ...]) -> float:
    """A standard deviation that keeps every layer's output near 1."""
    if name == "shared.weight":
        return _TIED_SCALE if shape.tied_head else 1.0
    if "relative_attention_bias" in name:
        return 0.5
    if name.endswith(".q.weight"):
        return float((size[1] * shape.d_kv) ** -0.5)  # T5's attention is not scaled by d_kv ** -0.5
    return float(size[1] ** -0.5)


def _write_tokenizer(folder: Path, pieces: int) -> None:
    """A Unigram vocabulary of exactly `pieces` made-up pieces; encoding appends </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    specials = ["<pad>", "</s>", "<unk>"]
    made = list(itertools.islice(_pieces(), pieces - len(specials)))
    scored = [(piece, -1.0 - place / 1000) for place, piece in enumerate([*specials, *made])]
    tokenizer = Tokenizer(models.Unigram(scored, 2))
    tokenizer.add_special_tokens(specials)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / TOKENIZER_NAME))
    _write_tokenizer_settings(folder)


def _copy_tokenizer(path: Path, folder: Path, shape: Architecture) -> None:
    from edge.runtime.text.tokenization import Tokenizer

    pieces = Tokenizer(path, eos=shape.eos_token_id).pieces
    if pieces > shape.vocab_size:
        raise UsageError(f"{path} has {pieces:,} pieces, more than the {shape.vocab_size:,} ids")
    shutil.copyfile(path, folder / TOKENIZER_NAME)
    _write_tokenizer_settings(folder)


def _write_tokenizer_settings(folder: Path) -> None:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # known to transformers 4 and 5
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _pieces() -> Iterator[str]:
    """The word boundary, printable ASCII, then strings of two letters, of three, and so on."""
    yield "▁"
    yield from (sign for sign in string.printable if not sign.isspace())
    for length in itertools.count(2):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
