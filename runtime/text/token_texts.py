"""The text that each token adds to an answer, as bytes of UTF-8."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.runtime.text.tokenization import Tokenizer

_ROWS = 4096  # decoded at once
_NO_TEXT = re.compile(r"</?s>|<(?:pad|unk|mask|extra_id_\d+)>")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class TokenTexts:
    """What decoding gives for each id.

    The text of an answer is `first` of its first token, then `inner` of the others: T5's decoder
    drops the space at the start of an answer.

    Attributes:
        first: By id, as the first token; None where it may not start an answer.
        inner: By id, after other tokens; None for special tokens, sentinels and unused ids.
    """

    first: tuple[bytes | None, ...]
    inner: tuple[bytes | None, ...]

    def join(self, ids: list[int] | tuple[int, ...]) -> bytes:
        """The text of an answer; special tokens add nothing."""
        shown = [token for token in ids if self.inner[token] is not None]
        if not shown:
            return b""
        rest = b"".join(self.inner[token] or b"" for token in shown[1:])
        return (self.first[shown[0]] or b"") + rest


def token_texts(tokenizer: Tokenizer) -> TokenTexts:
    """The texts of all ids, from what the tokenizer's own decoder gives for them.

    Tokens of a part of a character have their bytes: those of byte-level vocabularies (GPT-2, ByT5
    here) and the `<0x0A>` of byte fallback.
    """
    names = tokenizer.names()
    shown = [
        number
        for number, name in enumerate(names)
        if name is not None and not _NO_TEXT.fullmatch(name)
    ]
    first: list[bytes | None] = [None] * len(names)
    inner: list[bytes | None] = [None] * len(names)
    alone = _decode(tokenizer, [[number] for number in shown])
    if "ByteLevel" in tokenizer.decoder_types:
        signs = {sign: byte for byte, sign in enumerate(signs_of_bytes())}
        for number, text in zip(shown, alone, strict=True):
            if text:  # not a special token
                first[number] = inner[number] = _byte_level(names[number] or "", signs)
        return TokenTexts(tuple(first), tuple(inner))
    anchor = next((n for n, text in zip(shown, alone, strict=True) if _is_whole(text)), None)
    if anchor is None:
        return TokenTexts(tuple(first), tuple(inner))
    [before] = _decode(tokenizer, [[anchor]])
    after = _decode(tokenizer, [[anchor, number] for number in shown])
    has_fallback = "ByteFallback" in tokenizer.decoder_types
    for number, start, both in zip(shown, alone, after, strict=True):
        byte = _BYTE.fullmatch(names[number] or "") if has_fallback else None
        if byte:
            inner[number] = bytes.fromhex(byte[1])
            first[number] = inner[number] if _REPLACEMENT in start else start.encode()
        elif both.startswith(before) and len(both) > len(before) and _is_whole(both):
            first[number], inner[number] = start.encode(), both[len(before) :].encode()
    if any(a is not None and a != b for a, b in zip(first, inner, strict=True)):
        # The first space is dropped: an answer starts with it, as in training.
        for number in shown:
            if not (inner[number] or b"").startswith(b" "):
                first[number] = None
    return TokenTexts(tuple(first), tuple(inner))


def signs_of_bytes() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies.

    Source: `bytes_to_unicode` of GPT-2 (Radford et al. 2019).
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _byte_level(name: str, signs: dict[str, int]) -> bytes:
    if all(sign in signs for sign in name):
        return bytes(signs[sign] for sign in name)
    return name.encode()  # an added token


def _is_whole(text: str) -> bool:
    return bool(text) and _REPLACEMENT not in text


def _decode(tokenizer: Tokenizer, rows: list[list[int]]) -> list[str]:
    return [
        text
        for start in range(0, len(rows), _ROWS)
        for text in tokenizer.decode(rows[start : start + _ROWS])
    ]
