"""The model and tokenizer to train: from the hub, from a folder, or made from nothing.

Nothing of a stranger's is executed: weights come from safetensors only, never from a pickle, and
code in a model folder is not run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, first_line
from edge.train.model.from_scratch import new_model, shape_named
from edge.train.model.tokenizer import build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from edge.train.config import TrainConfig

FAMILY = ("t5", "mt5")


@dataclass
class Trainable:
    """A model in fp32 with its tokenizer, and what is worth a warning about them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    warnings: list[str]


def open_model(config: TrainConfig, texts: Iterable[str], workplace: Path) -> Trainable:
    """The model that `config` (resolved) asks for; a new one learns its vocabulary from `texts`.

    `workplace` is a folder for files on the way.

    Raises:
        ModelError: as `load_pretrained`.
        DataError: the texts are too few to learn a vocabulary from.
    """
    if config.from_scratch is not None:
        return _from_scratch(config, texts, workplace)
    assert config.model is not None
    bits = config.quant_bits if config.method == "qlora" else None
    trainable = load_pretrained(config.model, dropout=config.dropout, quant_bits=bits)
    generation = trainable.model.generation_config
    if generation.max_new_tokens is None:
        # Without it transformers stops after 20 tokens, whatever the model was trained to write.
        generation.max_new_tokens = config.max_target_length
        generation.max_length = None
    return trainable


def _from_scratch(config: TrainConfig, texts: Iterable[str], workplace: Path) -> Trainable:
    assert config.from_scratch is not None
    assert config.dropout is not None
    shape = shape_named(config.from_scratch)
    tokenizer = new_tokenizer(config, texts, workplace)
    model = new_model(
        shape,
        vocab_size=len(tokenizer),
        dropout=config.dropout,
        seed=config.seed,
    )
    model.generation_config.max_new_tokens = config.max_target_length
    return Trainable(model, tokenizer, f"from scratch ({config.from_scratch})", [])


def new_tokenizer(
    config: TrainConfig, texts: Iterable[str], workplace: Path
) -> PreTrainedTokenizerBase:
    """The vocabulary that a new model learns from `texts`, written to and loaded from `workplace`.

    Raises:
        DataError: the texts are too few.
    """
    from transformers import AutoTokenizer

    assert config.vocab_size is not None
    assert config.max_source_length is not None
    pieces = build_tokenizer(texts, vocab_size=config.vocab_size)
    save_tokenizer(pieces, workplace, model_max_length=config.max_source_length)
    return AutoTokenizer.from_pretrained(str(workplace), trust_remote_code=False)


def load_settings(name: str) -> PretrainedConfig:
    """The configuration of a T5-family folder or hub id.

    Raises:
        ModelError: there is no such model, or it is no T5-family model.
    """
    from transformers import AutoConfig

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{name}: no model folder, it has no config.json")
    with _as_model_error(name), quiet():
        settings = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if settings.model_type not in FAMILY:
        raise ModelError(
            f"{name}: is a {settings.model_type} model; this project trains the T5 family"
            f" ({', '.join(FAMILY)}), such as google/flan-t5-small"
        )
    return settings


def load_pretrained(
    name: str, *, dropout: float | None = None, quant_bits: int | None = None
) -> Trainable:
    """A T5-family model with its tokenizer, from a folder or a hub id, in fp32.

    With `quant_bits` its linear layers are quantized on the GPU: 4 (nf4) or 8.

    A head that differs from the embedding stays a head of its own, whatever the config says:
    transformers 5 calls every T5 tied and keeps in `scale_decoder_outputs` what that used to mean.

    Raises:
        ModelError: there is no such model, it is no T5-family model, it has no safetensors, its
            weights don't fit its config, or its tokenizer has more pieces than its embedding.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        MT5ForConditionalGeneration,
        T5ForConditionalGeneration,
    )

    settings: Any = load_settings(name)
    if dropout is not None:
        settings.dropout_rate = dropout
    is_t5 = settings.model_type == "t5"
    kind: Any = T5ForConditionalGeneration if is_t5 else MT5ForConditionalGeneration
    with _as_model_error(name), quiet():
        model, report = kind.from_pretrained(
            name,
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if quant_bits is None else _quantized(quant_bits)),
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are missing from its safetensors, such as"
            f" {missing[0]}; the folder is incomplete"
        )
    pieces, rows = len(tokenizer), model.config.vocab_size
    if pieces > rows:
        raise ModelError(
            f"{name}: its tokenizer has {pieces} pieces and its embedding {rows} rows; the two"
            " don't belong together"
        )
    return Trainable(model, tokenizer, name, [])


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id, without its weights.

    Raises:
        ModelError: there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    with _as_model_error(name), quiet():
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def _quantized(bits: int) -> dict[str, Any]:
    """How `from_pretrained` is told to quantize with bitsandbytes."""
    import torch
    from transformers import BitsAndBytesConfig

    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    four_bit = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16 if has_bf16 else torch.float32,
    }
    settings: Any = BitsAndBytesConfig(**four_bit if bits == 4 else {"load_in_8bit": True})
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def parameter_count(model: PreTrainedModel, *, trained: bool = False) -> int:
    """Weights of the model, or only those that are `trained`; a tied one counts once."""
    weights = model.parameters()
    return sum(weight.numel() for weight in weights if weight.requires_grad or not trained)


@contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    """What transformers and huggingface_hub say in many lines, in one."""
    from safetensors import SafetensorError

    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if Path(name).is_dir():
            has_pickle = any(Path(name).glob("*.bin")) and not any(Path(name).glob("*.safetensors"))
            reason = (
                "its weights are in a pickle (.bin), which may run code; make it safetensors"
                if has_pickle
                else f"the folder can't be loaded ({first_line(error)})"
            )
            raise ModelError(f"{name}: {reason}") from error
        raise ModelError(
            f"{name}: no such folder here, and it can't be had from the hub either"
            f" ({first_line(error)})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' notes on heads, weights and retries; ours say what matters."""
    from huggingface_hub.utils import logging as hub_chatter
    from transformers.utils import logging as chatter

    level, hub_level = chatter.get_verbosity(), hub_chatter.get_verbosity()
    hub_chatter.set_verbosity(logging.ERROR)
    chatter.set_verbosity(logging.ERROR)
    bars = chatter.is_progress_bar_enabled()
    if bars:
        chatter.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        hub_chatter.set_verbosity(hub_level)
        if bars:
            chatter.enable_progress_bar()
