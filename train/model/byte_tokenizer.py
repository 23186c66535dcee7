"""ByT5's tokenizer as a `tokenizer.json`: each byte of UTF-8 is a token (Xue et al. 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.text.token_texts import signs_of_bytes
from edge.train.model.training_record import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE_TOKENIZER_CLASS = "ByT5Tokenizer"
_SPECIAL = ("<pad>", "</s>", "<unk>")  # the ids 0, 1 and 2; bytes follow
_SENTINELS = 125


def is_byte_tokenizer(folder: Path) -> bool:
    """Whether a folder's tokenizer works on bytes, and so has no file."""
    settings = read_json_object(folder / "tokenizer_config.json")
    return settings.get("tokenizer_class") == BYTE_TOKENIZER_CLASS


def byte_tokenizer() -> Any:
    """The tokenizers library's object, with the ids of transformers' `ByT5Tokenizer`.

    Bytes that are no whole character decode to U+FFFD, where transformers leaves them out.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {piece: number for number, piece in enumerate(_SPECIAL)}
    vocabulary |= {sign: byte + len(_SPECIAL) for byte, sign in enumerate(signs_of_bytes())}
    tokenizer: Any = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.add_special_tokens(
        [AddedToken(piece, lstrip=True, rstrip=True, special=True) for piece in _SPECIAL]
    )
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in range(_SENTINELS)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def load_byte_tokenizer() -> PreTrainedTokenizerBase:
    """The same for transformers, which saves it as tokenizer.json."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
