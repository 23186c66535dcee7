"""ByT5's tokenizer as a `tokenizer.json`: each byte of UTF-8 is a token (Xue et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError
from edge.runtime.text.token_texts import signs_of_bytes
from edge.train.model.training_record import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE_TOKENIZER_CLASS = "ByT5Tokenizer"
_SPECIAL = 3  # <pad>, </s> and <unk>; bytes follow


def is_byte_tokenizer(folder: Path) -> bool:
    """Whether a folder's tokenizer works on bytes, and so has no file."""
    settings = read_json_object(folder / "tokenizer_config.json")
    return settings.get("tokenizer_class") == BYTE_TOKENIZER_CLASS


def byte_tokenizer(original: PreTrainedTokenizerBase, folder: Path) -> Any:
    """The tokenizers library's object, with the ids of transformers' `ByT5Tokenizer`.

    Bytes that are no whole character decode to U+FFFD, where transformers leaves them out.

    Args:
        original: That tokenizer, whose special and added tokens are taken.
        folder: Where it came from, for error messages.

    Raises:
        ModelError: The ids of the added tokens have gaps, or are those of bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens: Mapping[int, AddedToken] = original.added_tokens_decoder
    bytes_end = _SPECIAL + 256
    expected = (*range(_SPECIAL), *range(bytes_end, bytes_end + len(tokens) - _SPECIAL))
    for number, wanted in zip(sorted(tokens), expected, strict=True):
        if number != wanted:
            raise ModelError(
                f"{folder}: transformers gives {tokens[number].content!r:.80} the id {number}, but"
                f" {wanted} is the next after bytes and other tokens. Correct the added tokens in"
                " tokenizer_config.json or added_tokens.json"
            )
    special = [tokens[number].content for number in range(_SPECIAL)]
    vocabulary = {piece: number for number, piece in enumerate(special)}
    vocabulary |= {sign: byte + _SPECIAL for byte, sign in enumerate(signs_of_bytes())}
    tokenizer: Any = Tokenizer(models.BPE(vocabulary, [], unk_token=special[2]))
    for number in expected:
        token = tokens[number]
        is_special = token.special or token.content in original.all_special_tokens
        kept = AddedToken(
            token.content,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=is_special,
        )
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([kept])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = special[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], special_tokens=[(end, 1)]
    )
    return tokenizer


def load_byte_tokenizer(original: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The same for transformers, which saves it as tokenizer.json."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(original, folder),
        pad_token=original.pad_token,
        eos_token=original.eos_token,
        unk_token=original.unk_token,
    )
