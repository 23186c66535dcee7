"""Models and tokenizers from a folder or the hub.

Never runs untrusted code: weights come from safetensors only, never from a pickle, and code in a
model folder is not run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, library_errors, one_line
from edge.runtime.hub import snapshot_of
from edge.runtime.options import GenerationOptions
from edge.train.device import has_fast_bf16
from edge.train.model.architecture import read_architecture
from edge.train.model.byte_tokenizer import BYTE_TOKENIZER_CLASS, load_byte_tokenizer
from edge.train.model.folder import check_model_folder, open_tokenizer
from edge.train.model.generation import read_generation
from edge.train.model.local_folder import local_folder
from edge.train.model.marked_files import loading_options, read_transformers_config
from edge.train.model.training_record import require_json_object
from edge.train.model.weight_files import checked_weights
from edge.train.model.weights import require_finite
from edge.train.vocabulary import CONFIG_KEY, initialize_rows, recorded_characters

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FAMILY = ("t5", "mt5")


@dataclass
class Trainable:
    """A model in fp32 with its tokenizer, the name to show for it, warnings and notes about it.

    `generation` is what answers are generated with, and `end_token_ids` what ends them. `new_ids`
    are those of pieces that were added in this run. `revision` is the commit of a hub model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    end_token_ids: tuple[int, ...] = ()
    new_ids: tuple[int, ...] = ()
    revision: str | None = None

    @property
    def added_characters(self) -> dict[str, int]:
        """The id of each character that was added to the tokenizer, in this run or before."""
        return recorded_characters(self.model.config.to_dict())

    def extend_by(
        self,
        tokenizer: PreTrainedTokenizerBase,
        added: Mapping[str, int],
        related: Mapping[int, Sequence[int]],
    ) -> None:
        """Take an extended tokenizer, and start the rows of its new pieces from related ones.

        Args:
            tokenizer: The tokenizer.
            added: The id of each new character.
            related: For each new id those of older pieces; see `initialize_rows`.
        """
        initialize_rows(self.model, related)
        self.tokenizer = tokenizer
        self.new_ids = tuple(sorted(related))
        self.record_characters(added)

    def record_characters(self, added: Mapping[str, int]) -> None:
        """Remember added characters in the model's config.json."""
        if added:
            setattr(self.model.config, CONFIG_KEY, {**self.added_characters, **added})


def load_model_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a T5-family model folder or hub id; weights are not downloaded.

    Raises:
        ModelError: The model does not exist, or is not of the T5 family.
    """
    return _model_config(local_folder(name, revision, weights=False), name)


def _model_config(folder: Path, name: str) -> PretrainedConfig:
    check_model_folder(folder)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name}: not a model folder; it has no config.json")
    generation = read_generation(folder)
    values = require_json_object(folder / "config.json")
    kind = values.get("model_type")
    if kind not in FAMILY:
        raise ModelError(
            f"{name}: is a {one_line(str(kind), 40)} model by the model_type in config.json. Only"
            f" the T5 family ({', '.join(FAMILY)}) can be trained, such as google/flan-t5-small"
        )
    read_architecture(values, tied_head=True, folder=folder, generation=generation)
    with _as_model_error(name), quiet():
        return read_transformers_config(folder)


def load_pretrained(
    name: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    quant_bits: int | None = None,
    tokenizer_folder: str | None = None,
) -> Trainable:
    """Load a T5-family model in fp32 with its tokenizer.

    An output head that differs from the embedding stays separate, whatever the config says:
    transformers 5 marks every T5 as tied and moves the old meaning to `scale_decoder_outputs`.

    Args:
        name: A folder or a hub id.
        revision: Branch, tag or commit of a hub id.
        dropout: Dropout rate in place of the config's.
        quant_bits: Quantize the linear layers on the GPU to 4 (nf4) or 8 bits.
        tokenizer_folder: A folder or a hub id with the tokenizer in place of the model's.

    Raises:
        ModelError: The model does not exist, is not of the T5 family, has no safetensors, its
            weights do not match its config, or its tokenizer is larger than its embedding.
    """
    import torch
    from transformers import MT5ForConditionalGeneration, T5ForConditionalGeneration

    folder = local_folder(name, revision)
    model_config: Any = _model_config(folder, name)
    checked_weights(folder)
    if dropout is not None:
        model_config.dropout_rate = dropout
    is_t5 = model_config.model_type == "t5"
    model_class: Any = T5ForConditionalGeneration if is_t5 else MT5ForConditionalGeneration
    with _as_model_error(name), quiet():
        model, report = model_class.from_pretrained(
            folder,
            **loading_options(folder) | {"config": model_config},
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if quant_bits is None else _quantization_options(quant_bits)),
        )
    tokenizer = load_tokenizer(tokenizer_folder or str(folder))
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are missing from its safetensors, such as"
            f" {missing[0]}; the folder is incomplete"
        )
    require_finite(model.named_parameters(), name)
    pieces, rows = len(tokenizer), model.config.vocab_size
    if pieces > rows:
        raise ModelError(
            f"{name}: the tokenizer has {pieces} pieces but the embedding only {rows} rows; the two"
            " don't belong together"
        )
    name, commit = snapshot_of(folder) or (name, None)
    return Trainable(model, tokenizer, name, [], revision=commit)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id.

    Raises:
        ModelError: It does not exist or cannot be loaded.
    """
    folder = local_folder(name, revision, weights=False)
    with quiet():
        tokenizer = open_tokenizer(folder)
    if type(tokenizer).__name__ == BYTE_TOKENIZER_CLASS:
        return load_byte_tokenizer(tokenizer, folder)
    # The runtime decodes without clean-up, which removes spaces before punctuation, such as in
    # "find . -name"; T5's folder asks for it.
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _quantization_options(bits: int) -> dict[str, Any]:
    """Arguments of `from_pretrained` for quantization by bitsandbytes."""
    import torch
    from transformers import BitsAndBytesConfig

    four_bit = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16 if has_fast_bf16("cuda") else torch.float32,
    }
    settings: Any = BitsAndBytesConfig(**four_bit if bits == 4 else {"load_in_8bit": True})
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def parameter_count(model: PreTrainedModel, *, trained: bool = False) -> int:
    """Number of parameters, or of trainable ones with `trained`; tied ones count once."""
    weights = model.parameters()
    return sum(weight.numel() for weight in weights if weight.requires_grad or not trained)


@contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    """Turn the errors of transformers into one line."""
    with library_errors(ModelError, name, "the folder can't be loaded"):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and progress bars of transformers and huggingface_hub."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    level, hub_level = transformers_logging.get_verbosity(), hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.set_verbosity(logging.ERROR)
    bars = transformers_logging.is_progress_bar_enabled()
    if bars:
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
