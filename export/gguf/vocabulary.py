"""A GGUF vocabulary made from tokenizer.json, for use of the file with llama.cpp's tools.

edge itself tokenizes with tokenizer.json. llama.cpp's Unigram tokenizer supports scores, a
precompiled character map and Metaspace, but no other normalizers and pre-tokenizers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from edge.runtime.artifact import TOKENIZER_MAX_BYTES
from edge.runtime.errors import ModelError
from edge.runtime.platform.json_file import read_json
from edge.train.vocabulary.extension import escapes

_UNUSED_SCORE = -10_000.0
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class GgufVocabulary:
    """A Unigram vocabulary in the terms of GGUF.

    Attributes:
        pieces: by id, padded to the model's vocab_size.
        scores: natural log-probabilities, by id.
        types: values of `gguf.TokenType`, by id.
        unknown: the id of the unknown token, or None.
        charsmap: SentencePiece's precompiled character map, or None.
        space_prefix: whether a space is put before the text.
        remove_extra_whitespaces: whether runs of spaces become one.
    """

    pieces: list[str]
    scores: list[float]
    types: list[int]
    unknown: int | None
    charsmap: bytes | None
    space_prefix: bool
    remove_extra_whitespaces: bool

    def add_to(self, writer: GGUFWriter, *, eos: int, pad: int) -> None:
        """Write the tokenizer's metadata of a GGUF file."""
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.pieces)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        writer.add_eos_token_id(eos)
        writer.add_pad_token_id(pad)
        if self.unknown is not None:
            writer.add_unk_token_id(self.unknown)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(True)
        writer.add_add_space_prefix(self.space_prefix)
        writer.add_remove_extra_whitespaces(self.remove_extra_whitespaces)
        if self.charsmap:
            writer.add_precompiled_charsmap(self.charsmap)


def read_vocabulary(path: Path, size: int, *, eos: int, pad: int) -> GgufVocabulary | None:
    """The vocabulary of a tokenizer.json, padded to `size`; None if it is not a Unigram tokenizer.

    Raises:
        ModelError: the tokenizer is malformed or has more pieces than the model.
    """
    try:
        tokenizer = read_json(path, TOKENIZER_MAX_BYTES)
        if tokenizer["model"].get("type") != "Unigram":
            return None
        return _vocabulary(tokenizer, size, {eos, pad})
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{path.name}: malformed Unigram vocabulary ({error})") from None


def _vocabulary(tokenizer: dict[str, Any], size: int, control: set[int]) -> GgufVocabulary:
    model = tokenizer["model"]
    pieces: dict[int, str] = {}
    scores: dict[int, float] = {}
    # Characters such as a newline, which edge's tokenizer escapes, stand here as themselves:
    # llama.cpp has no such decoder.
    plain = {escape: character for character, escape in escapes(tokenizer).items()}
    for token, (piece, score) in enumerate(model["vocab"]):
        pieces[token] = "".join(plain.get(c, c) for c in piece) if plain else piece
        scores[token] = float(score)
    types = {
        token: int(TokenType.BYTE if _BYTE_PIECE.fullmatch(piece) else TokenType.NORMAL)
        for token, piece in pieces.items()
    }
    for added in tokenizer.get("added_tokens") or []:
        token = int(added["id"])
        pieces[token] = added["content"]
        scores.setdefault(token, 0.0)
        # llama.cpp matches user-defined pieces in plain text, as tokenizers does added tokens.
        types[token] = int(TokenType.CONTROL if token in control else TokenType.USER_DEFINED)
    unknown = model.get("unk_id")
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    if max(pieces) >= size:
        raise ModelError(
            f"tokenizer.json has ids up to {max(pieces)}, but the model's vocab_size is {size}"
        )
    _pad(pieces, size)
    return GgufVocabulary(
        pieces=[pieces[token] for token in range(size)],
        scores=[scores.get(token, _UNUSED_SCORE) for token in range(size)],
        types=[types.get(token, int(TokenType.UNUSED)) for token in range(size)],
        unknown=unknown,
        charsmap=_charsmap(tokenizer),
        space_prefix=_space_prefix(tokenizer),
        remove_extra_whitespaces=_collapses_spaces(tokenizer),
    )


def _pad(pieces: dict[int, str], size: int) -> None:
    """Give every id a unique, non-empty piece; llama.cpp aborts otherwise."""
    taken: set[str] = set()
    for token in range(size):
        piece = pieces.get(token, "")
        while not piece or piece in taken:
            piece = f"[PAD{token}]" if piece != f"[PAD{token}]" else f"[PAD{token}]_"
        pieces[token] = piece
        taken.add(piece)


# -- normalizer and pre-tokenizer ----------------------------------------------------------------


def _steps(node: Any) -> Iterator[dict[str, Any]]:
    """All steps of a normalizer or pre-tokenizer, with nested sequences flattened."""
    if not isinstance(node, dict):
        return
    inner = node.get("normalizers") or node.get("pretokenizers")
    if inner is None:
        yield node
        return
    for step in inner:
        yield from _steps(step)


def _charsmap(tokenizer: dict[str, Any]) -> bytes | None:
    for step in _steps(tokenizer.get("normalizer")):
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            return base64.b64decode(step["precompiled_charsmap"])
    return None


def _space_prefix(tokenizer: dict[str, Any]) -> bool:
    return any(
        step.get("type") == "Metaspace"
        and (step.get("prepend_scheme") != "never" and step.get("add_prefix_space", True))
        for step in _steps(tokenizer.get("pre_tokenizer"))
    )


def _collapses_spaces(tokenizer: dict[str, Any]) -> bool:
    """Whether runs of spaces become one, for example by a replacement " {2,}" → " "."""
    for step in _steps(tokenizer.get("normalizer")):
        pattern = step.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if step.get("type") == "Replace" and regex in (" {2,}", r"\s+", r" +"):
            return True
    # WhitespaceSplit before Metaspace drops extra spaces too.
    steps = _steps(tokenizer.get("pre_tokenizer"))
    return any(step.get("type") == "WhitespaceSplit" for step in steps)
