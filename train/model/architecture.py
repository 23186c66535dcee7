"""The T5 architecture that a config.json describes, and the shapes of its weights.

Handles folders written by transformers 4 and 5, which store the tying and the scaling of the
head differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtime.artifact.dimensions import DIMENSIONS
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import ModelError
from edge.train.model.generation import SavedGeneration

# State-dict names.
EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"

MODEL_TYPES = ("t5", "mt5", "umt5")
ACTIVATIONS = ("relu", "gelu_new", "gelu", "silu")
# T5 has a position bias in the first layer of each stack; umT5 has one in every layer.
_OTHER_BIAS = re.compile(r"(encoder|decoder)\.block\.[1-9]\d*\..*relative_attention_bias\.weight")


def read_architecture(
    config: Mapping[str, Any],
    *,
    tied_head: bool,
    folder: Path,
    generation: SavedGeneration | None = None,
) -> Architecture:
    """The architecture of a T5-family model.

    Args:
        config: the values of config.json; missing ones take the defaults of transformers' T5Config
            or MT5Config.
        tied_head: whether `lm_head` and `shared` are the same weights. The config does not say:
            transformers 5 writes `tie_word_embeddings: true` for every T5.
        folder: where the config came from, for error messages.
        generation: the folder's generation settings, whose special tokens come first.

    Raises:
        ModelError: another model type, an unknown activation, or an invalid number.
    """
    generation = SavedGeneration(folder) if generation is None else generation
    return _ConfigReader(config, generation, folder).read(tied_head=tied_head)


class _ConfigReader:
    def __init__(
        self, config: Mapping[str, Any], generation: SavedGeneration, folder: Path
    ) -> None:
        self._config = config
        self._generation = generation
        self._folder = folder

    def read(self, *, tied_head: bool) -> Architecture:
        config = self._config
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelError(
                f"{self._folder}: model_type is {model_type!r:.80}, not a T5-family model"
                f" ({', '.join(MODEL_TYPES)})"
            )
        t5 = model_type == "t5"
        activation, gated = self._activation("relu" if t5 else "gated-gelu")
        layers = self._dimension("num_layers", 6 if t5 else 8)
        vocab_size = self._dimension("vocab_size", 32128 if t5 else 250112)
        return Architecture(
            model_type=model_type,
            vocab_size=vocab_size,
            d_model=self._dimension("d_model", 512),
            d_kv=self._dimension("d_kv", 64),
            d_ff=self._dimension("d_ff", 2048 if t5 else 1024),
            num_heads=self._dimension("num_heads", 8 if t5 else 6),
            num_layers=layers,
            num_decoder_layers=self._dimension("num_decoder_layers", layers),
            relative_attention_num_buckets=self._dimension("relative_attention_num_buckets", 32),
            relative_attention_max_distance=self._dimension("relative_attention_max_distance", 128),
            layer_norm_epsilon=self._epsilon(),
            dense_act_fn=activation,
            is_gated_act=gated,
            tied_head=tied_head,
            # transformers 5 scales the outputs of every umT5.
            scale_decoder_outputs=model_type == "umt5" or (t5 and self._outputs_are_scaled()),
            pad_token_id=self._token_id("pad_token_id", 0, vocab_size),
            eos_token_id=self._token_id("eos_token_id", 1, vocab_size),
            decoder_start_token_id=self._token_id("decoder_start_token_id", 0, vocab_size),
            end_token_ids=self._end_token_ids(vocab_size),
        )

    def _activation(self, default: str) -> tuple[str, bool]:
        """The name of the activation function, and whether the feed-forward layer is gated.

        As in transformers, dense_act_fn and is_gated_act come before feed_forward_proj.
        """
        config = self._config
        projection = config.get("feed_forward_proj", default)
        prefix, _, last = str(projection).rpartition("-")
        function: Any = last
        source, shown = "feed_forward_proj", projection
        if type(projection) is not str or prefix not in ("", "gated"):
            function = None
        elif "dense_act_fn" in config:
            source, function = "dense_act_fn", config["dense_act_fn"]
            shown = function
        elif projection == "gated-gelu":
            function = "gelu_new"
        if function not in ACTIVATIONS:
            raise ModelError(
                f"{self._folder}: {source} {shown!r:.80} is not supported (supported:"
                f" {', '.join(ACTIVATIONS)}; feed_forward_proj may put gated- before them)"
            )
        gated = config.get("is_gated_act", projection.split("-")[0] == "gated")
        if type(gated) is not bool:
            raise ModelError(f"{self._folder}: is_gated_act is {gated!r:.80}, not true or false")
        return function, gated

    def _outputs_are_scaled(self) -> bool:
        """Whether a T5 scales the decoder's outputs (transformers 5 never scales those of mT5)."""
        if "scale_decoder_outputs" in self._config:  # written by transformers 5
            return bool(self._config["scale_decoder_outputs"])
        # transformers 4 scaled where the embeddings were tied, and its T5Config's default was tied.
        return self._config.get("tie_word_embeddings", True) is not False

    def _dimension(self, name: str, default: int) -> int:
        value = self._config.get(name, default)
        if value is None and name == "num_decoder_layers":
            value = default
        low, high = DIMENSIONS[name]
        if type(value) is not int or not low <= value <= high:
            raise ModelError(
                f"{self._folder}/config.json: {name} is {value!r:.80}, not a whole number from"
                f" {low} to {high}"
            )
        return value

    def _epsilon(self) -> float:
        value = self._config.get("layer_norm_epsilon", 1e-6)
        if type(value) not in (int, float) or not 0 < value < 1:
            raise ModelError(
                f"{self._folder}/config.json: layer_norm_epsilon is {value!r:.80}, not a number"
                " between 0 and 1"
            )
        return float(value)

    def _end_token_ids(self, vocab_size: int) -> tuple[int, ...]:
        """The ids that end an answer, if they are not eos_token_id alone."""
        ends = self._generation.end_token_ids
        for token in ends:
            if token >= vocab_size:
                raise ModelError(
                    f"{self._generation.path}: eos_token_id {token} is not an id below {vocab_size}"
                )
        return () if ends == (self._token_id("eos_token_id", 1, vocab_size),) else ends

    def _token_id(self, name: str, default: int, vocab_size: int) -> int:
        """The id in generation_config.json, or else in config.json, which training reads, too."""
        chosen = default
        for path, value in (
            (self._folder / "config.json", self._config.get(name)),
            (self._generation.path, self._generation.token_ids.get(name)),
        ):
            if isinstance(value, list) and value:
                # Of several, the one that the tokenizer puts at the end of a text.
                value = default if default in value else value[0]
            if value is None:
                continue
            if type(value) is not int or not 0 <= value < vocab_size:
                raise ModelError(f"{path}: {name} is {value!r:.80}, not an id below {vocab_size}")
            chosen = value
        return chosen


def bias_name(stack: str, layer: int) -> str:
    """The state-dict name of the position bias of a layer of "encoder" or "decoder"."""
    return f"{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"


def expected_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """State-dict name → shape of every weight of a T5 of this architecture."""
    wide, inner, ff = shape.d_model, shape.inner_dim, shape.d_ff
    bias = (shape.relative_attention_num_buckets, shape.num_heads)
    weights: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocab_size, wide)}
    if not shape.tied_head:
        weights[HEAD] = (shape.vocab_size, wide)
    for stack, layers in (("encoder", shape.num_layers), ("decoder", shape.num_decoder_layers)):
        weights[f"{stack}.final_layer_norm.weight"] = (wide,)
        for layer in range(layers if shape.has_bias_per_layer else 1):
            weights[bias_name(stack, layer)] = bias
        attentions = ["SelfAttention"] + (["EncDecAttention"] if stack == "decoder" else [])
        for layer in range(layers):
            block = f"{stack}.block.{layer}.layer"
            for index, attention in enumerate(attentions):
                for projection in "qkv":
                    weights[f"{block}.{index}.{attention}.{projection}.weight"] = (inner, wide)
                weights[f"{block}.{index}.{attention}.o.weight"] = (wide, inner)
            feed_forward = f"{block}.{len(attentions)}.DenseReluDense"
            for name in ("wi_0", "wi_1") if shape.is_gated_act else ("wi",):
                weights[f"{feed_forward}.{name}.weight"] = (ff, wide)
            weights[f"{feed_forward}.wo.weight"] = (wide, ff)
            for index in range(len(attentions) + 1):
                weights[f"{block}.{index}.layer_norm.weight"] = (wide,)
    return weights


def check_shapes(
    found: Mapping[str, tuple[int, ...]], architecture: Architecture, folder: Path
) -> None:
    """Check that every weight of the architecture is present and has the right shape.

    Args:
        found: state-dict name → shape.
        architecture: what the weights must fit.
        folder: where the weights came from, for error messages.

    Raises:
        ModelError: names the first weight that is missing, has another shape, or belongs to
            another architecture.
    """
    for name in () if architecture.has_bias_per_layer else filter(_OTHER_BIAS.fullmatch, found):
        raise ModelError(
            f"{folder}: {name} is not a weight of T5, whose layers share one position bias;"
            f" this is not {architecture.model_type} but another architecture, such as umT5"
        )
    layers = architecture.num_layers + architecture.num_decoder_layers
    if layers > len(found):  # before a list of their names is made
        raise ModelError(
            f"{folder}: config.json asks for {layers} layers, but there are only"
            f" {len(found)} weights"
        )
    for name, expected in expected_shapes(architecture).items():
        if name not in found:
            raise ModelError(f"{folder}: the weights lack {name}")
        if found[name] != expected:
            raise ModelError(
                f"{folder}: {name} has the shape {found[name]}, config.json asks for {expected}"
            )
