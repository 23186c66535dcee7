"""Checks of a local model folder: a model, not quantized, with a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.errors import ModelError, library_errors
from edge.train.model.adapter_config import refuse_adapter
from edge.train.model.byte_tokenizer import is_byte_tokenizer
from edge.train.model.lfs import refuse_lfs_pointers
from edge.train.model.marked_files import loading_options
from edge.train.model.training_record import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_model_folder(folder: Path) -> None:
    """Reject pointers of Git LFS, an adapter and quantized weights.

    Raises:
        ModelError: The folder holds one of these; the message says what to use instead.
    """
    refuse_lfs_pointers(folder)
    refuse_adapter(folder)
    refuse_quantized(folder, read_json_object(folder / "config.json"))


def refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    """Reject a folder whose config.json, with the values `config`, says that it is quantized.

    Raises:
        ModelError: It does.
    """
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ModelError(
            f"{folder}: its weights are quantized already (quantization_config in config.json:"
            f" {method or 'unknown'!s:.40}). Use the model in full precision"
        )


def require_tokenizer(folder: Path) -> None:
    """Reject a folder without a tokenizer.

    Raises:
        ModelError: It has neither tokenizer.json nor spiece.model, no merges of byte pairs, and no
            tokenizer of bytes; or the tokenizer fails at characters that it does not know.
    """
    refuse_lfs_pointers(folder)
    _require_unknown_piece(folder / TOKENIZER_NAME)
    if any((folder / name).is_file() for name in (TOKENIZER_NAME, "spiece.model")):
        return
    if _has_byte_pairs(folder) or is_byte_tokenizer(folder):
        return
    raise ModelError(
        f"{folder}: no {TOKENIZER_NAME} and no spiece.model. Copy them from the model that this one"
        " was trained from, or name its folder with --tokenizer"
    )


def _require_unknown_piece(path: Path) -> None:
    """Reject a tokenizer.json of unigrams without a piece for unknown characters.

    The tokenizers library raises an error at the first of them.
    """
    model = read_json_object(path).get("model")
    if not isinstance(model, Mapping) or model.get("type") != "Unigram":
        return
    if model.get("unk_id") is None:
        raise ModelError(
            f"{path}: unk_id is null, so that texts with unknown characters can't be tokenized."
            " Set it to the id of <unk>"
        )


def _has_byte_pairs(folder: Path) -> bool:
    """Whether the tokenizer is vocab.json and merges.txt, as CodeT5's."""
    return all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """transformers' tokenizer of a folder.

    Raises:
        ModelError: The folder has none, or it is damaged.
    """
    from transformers import AutoTokenizer, RobertaTokenizer

    require_tokenizer(folder)
    opener: Any = AutoTokenizer
    if _has_byte_pairs(folder) and not (folder / TOKENIZER_NAME).is_file():
        settings = read_json_object(folder / "tokenizer_config.json")
        if not settings.get("tokenizer_class"):
            # transformers would go by the model's type, and T5 has no byte pairs.
            opener = RobertaTokenizer
    with library_errors(ModelError, folder, "the tokenizer can't be loaded"):
        options = {
            name: value for name, value in loading_options(folder).items() if name == "config"
        }
        tokenizer: PreTrainedTokenizerBase = opener.from_pretrained(
            folder, trust_remote_code=False, **options
        )
    return tokenizer
