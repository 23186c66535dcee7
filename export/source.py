"""The model to export: a Hugging Face folder (or hub id) read without trusting it.

Weights come from safetensors only, never from pickle. The head's two meanings (tied or not, scaled
or not) are settled here once, for folders written by transformers 4 and by 5.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.runtime.artifact import TOKENIZER_NAME, sha256_of
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.errors import ModelError, first_line
from edge.runtime.platform.json_file import read_json
from edge.runtime.text.tokenization import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPES = ("t5", "mt5")
# T5 has a position bias in the first layer of each stack; umT5, say, has one in every layer.
_OTHER_BIAS = re.compile(r"(encoder|decoder)\.block\.[1-9]\d*\..*relative_attention_bias\.weight")
ACTIVATIONS = ("relu", "gelu_new", "gelu", "silu")
TRAINING_RECORD = "training.json"
_HUB_FILES = ("*.json", "*.safetensors", "spiece.model", "*.md")
_MAX_JSON_BYTES = 64 << 20


class SourceModel:
    """A T5-family model folder: configuration, weights and tokenizer.

    Attributes:
        folder: the local folder.
        name: what the user called it (a path's last part, or a hub id).
        revision: the hub's commit, or None.
        architecture: the shape, with the head's tying and scaling settled.
        training: the record that `edge train` left in the folder, or {}.
        generation: generation_config.json, or {}.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None, revision: str | None = None):
        self.folder = Path(folder)
        self.name = name or self.folder.resolve().name
        self.revision = revision
        self.config = read_config(self.folder / "config.json")
        self.training = read_config(self.folder / TRAINING_RECORD, optional=True)
        self.generation = read_config(self.folder / "generation_config.json", optional=True)
        self._files = _weight_files(self.folder)
        self._index = _tensor_index(self._files)
        self.architecture = self._architecture()
        self._check_shapes()

    @classmethod
    def open(cls, model: str | Path, *, revision: str | None = None) -> SourceModel:
        """Open a local folder, or fetch a hub id such as `google/flan-t5-small`.

        Raises:
            ModelError: not found, no T5-family model, no safetensors, or weights that do not fit.
        """
        if Path(model).is_dir():
            return cls(model)
        text = str(model)
        if Path(model).exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
            raise ModelError(
                f"{model}: no such model folder (and no hub id like google/flan-t5-small)"
            )
        return cls(_fetch(text, revision), name=text, revision=revision)

    # -- weights ---------------------------------------------------------------------------------

    def tensor(self, name: str) -> np.ndarray:
        """A weight by its state-dict name, as float32 [as transformers stores it: out × in]."""
        from safetensors import safe_open

        if name == "lm_head.weight" and self.architecture.tied_head:
            name = "shared.weight"
        with safe_open(self._index[name], framework="pt") as handle:
            # Through torch, as numpy has no bfloat16.
            return handle.get_tensor(name).float().numpy()

    @functools.cached_property
    def weights_sha256(self) -> str:
        """The sha256 of the weights file; of several shards, that of their names and hashes."""
        if len(self._files) == 1:
            return sha256_of(self._files[0])
        lines = "".join(f"{path.name} {sha256_of(path)}\n" for path in self._files)
        return hashlib.sha256(lines.encode()).hexdigest()

    # -- tokenizer -------------------------------------------------------------------------------

    def write_tokenizer(self, folder: Path) -> None:
        """Put the model's tokenizer.json into `folder`, converted from spiece.model if need be.

        Raises:
            ModelError: the model has no tokenizer.
        """
        present = self.folder / TOKENIZER_NAME
        if present.is_file():
            (folder / TOKENIZER_NAME).write_bytes(present.read_bytes())
            return
        if not (self.folder / "spiece.model").is_file():
            raise ModelError(f"{self.folder}: no {TOKENIZER_NAME} and no spiece.model")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_NAME))

    @functools.cached_property
    def pieces(self) -> int:
        """How many ids have a piece of text; a model may have more ids than that."""
        with tempfile.TemporaryDirectory(prefix="edge-tokenizer-") as folder:
            self.write_tokenizer(Path(folder))
            eos = self.architecture.eos_token_id
            return Tokenizer(Path(folder) / TOKENIZER_NAME, eos=eos).pieces

    # -- reference -------------------------------------------------------------------------------

    @functools.cached_property
    def torch_model(self) -> PreTrainedModel:
        """transformers' own model in float32, in eval mode: what artifacts are compared with."""
        import torch
        from transformers import AutoModelForSeq2SeqLM
        from transformers.utils import logging

        verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()  # it warns of an untied head, which is as it should be
        logging.disable_progress_bar()
        try:
            model = AutoModelForSeq2SeqLM.from_pretrained(
                self.folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        finally:
            logging.set_verbosity(verbosity)
            if bar:
                logging.enable_progress_bar()
        return model.eval()

    # -- reading the configuration ---------------------------------------------------------------

    def _architecture(self) -> Architecture:
        config = self.config
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelError(
                f"{self.folder}: model_type is {model_type!r}, not a T5-family model"
                f" ({', '.join(MODEL_TYPES)})"
            )
        activation = str(
            config.get("feed_forward_proj", "gated-gelu" if model_type == "mt5" else "relu")
        )
        gate, _, function = activation.rpartition("-")
        function = "gelu_new" if activation == "gated-gelu" else function
        if gate not in ("", "gated") or function not in ACTIVATIONS:
            raise ModelError(
                f"{self.folder}: feed_forward_proj {activation!r} is not supported"
                f" (known: {', '.join(ACTIVATIONS)}, each also as gated-…)"
            )
        layers = self._whole("num_layers", 6 if model_type == "t5" else 8)
        vocab_size = self._whole("vocab_size", 32128 if model_type == "t5" else 250112)
        return Architecture(
            model_type=model_type,
            vocab_size=vocab_size,
            d_model=self._whole("d_model", 512),
            d_kv=self._whole("d_kv", 64),
            d_ff=self._whole("d_ff", 2048 if model_type == "t5" else 1024),
            num_heads=self._whole("num_heads", 8 if model_type == "t5" else 6),
            num_layers=layers,
            num_decoder_layers=self._whole("num_decoder_layers", layers),
            relative_attention_num_buckets=self._whole("relative_attention_num_buckets", 32),
            relative_attention_max_distance=self._whole("relative_attention_max_distance", 128),
            layer_norm_epsilon=float(config.get("layer_norm_epsilon", 1e-6)),
            dense_act_fn=function,
            is_gated_act=gate == "gated",
            tied_head=self._head_is_tied(),
            scale_decoder_outputs=self._outputs_are_scaled(),
            pad_token_id=self._token("pad_token_id", 0, vocab_size),
            eos_token_id=self._token("eos_token_id", 1, vocab_size),
            decoder_start_token_id=self._token("decoder_start_token_id", 0, vocab_size),
        )

    def _head_is_tied(self) -> bool:
        """The weights decide, as in transformers 5: its config says "tied" for every T5."""
        if "lm_head.weight" not in self._index:
            return True
        from safetensors import safe_open

        with safe_open(self._index["lm_head.weight"], framework="pt") as handle:
            head = handle.get_tensor("lm_head.weight")
        with safe_open(self._index["shared.weight"], framework="pt") as handle:
            return bool(head.equal(handle.get_tensor("shared.weight")))

    def _outputs_are_scaled(self) -> bool:
        if self.config["model_type"] == "mt5":
            return False  # transformers 5 never scales mT5
        if "scale_decoder_outputs" in self.config:  # written by transformers 5
            return bool(self.config["scale_decoder_outputs"])
        # transformers 4 scaled where the embeddings were tied, and its T5Config's default was tied.
        return self.config.get("tie_word_embeddings", True) is not False

    def _whole(self, name: str, default: int) -> int:
        value = self.config.get(name)
        if value is None:
            value = default
        if type(value) is not int or not 1 <= value <= 1 << 24:
            raise ModelError(f"{self.folder}/config.json: {name} is {value!r}")
        return value

    def _token(self, name: str, default: int, vocab_size: int) -> int:
        value = self.config.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if value is None:
            value = default
        if type(value) is not int or not 0 <= value < vocab_size:
            raise ModelError(f"{self.folder}/config.json: {name} is {value!r}")
        return value

    def _check_shapes(self) -> None:
        """Every weight that the shape asks for is there, in its size."""
        from safetensors import safe_open

        shapes: dict[str, list[int]] = {}
        for path in self._files:
            with safe_open(path, framework="pt") as handle:
                shapes |= {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118
        for name in filter(_OTHER_BIAS.fullmatch, shapes):
            raise ModelError(
                f"{self.folder}: {name} is no weight of T5, whose layers share one position bias;"
                f" another architecture than {self.architecture.model_type}, such as umT5"
            )
        for name, expected in expected_shapes(self.architecture).items():
            if name not in shapes:
                raise ModelError(f"{self.folder}: the weights lack {name}")
            if tuple(shapes[name]) != expected:
                raise ModelError(
                    f"{self.folder}: {name} is {tuple(shapes[name])},"
                    f" config.json asks for {expected}"
                )


def expected_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """State-dict name → shape of every weight of a T5 of this architecture."""
    wide, inner, ff = shape.d_model, shape.inner_dim, shape.d_ff
    bias = (shape.relative_attention_num_buckets, shape.num_heads)
    weights: dict[str, tuple[int, ...]] = {"shared.weight": (shape.vocab_size, wide)}
    if not shape.tied_head:
        weights["lm_head.weight"] = (shape.vocab_size, wide)
    for stack, layers in (("encoder", shape.num_layers), ("decoder", shape.num_decoder_layers)):
        weights[f"{stack}.final_layer_norm.weight"] = (wide,)
        weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = bias
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


def read_config(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object of a model's folder; {} where it is `optional` and not there.

    Raises:
        ModelError: missing, too large or malformed.
    """
    if not path.is_file():
        if optional:
            return {}
        raise ModelError(f"{path.parent}: no {path.name}; this is no Hugging Face model folder")
    try:
        values = read_json(path, _MAX_JSON_BYTES)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    if not isinstance(values, Mapping):
        raise ModelError(f"{path}: must be a JSON object")
    return dict(values)


def _weight_files(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = read_config(folder / "model.safetensors.index.json", optional=True)
    names = sorted({str(name) for name in index.get("weight_map", {}).values()})
    if any("/" in name or "\\" in name or not name.endswith(".safetensors") for name in names):
        raise ModelError(f"{folder}: the weights' index names files outside of the folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: {missing[0]} is missing (an unfinished download?)")
    if not names:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = (
            f"; {pickled[0]} is pickle, which is never loaded: convert it first" if pickled else ""
        )
        raise ModelError(f"{folder}: no model.safetensors{why}")
    return [folder / name for name in names]


def _tensor_index(files: list[Path]) -> dict[str, Path]:
    from safetensors import SafetensorError, safe_open

    index: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as handle:
                index |= dict.fromkeys(handle.keys(), path)
        except SafetensorError as error:
            raise ModelError(f"{path}: damaged or no safetensors file ({error})") from None
    if "shared.weight" not in index:
        # Some converters keep only the tied copies.
        raise ModelError(f"{files[0].parent}: the weights lack shared.weight; this is no T5 model")
    return index


def _fetch(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{hub_id}: no such local folder, and not fetched from the hub ({first_line(error)})"
        ) from error
