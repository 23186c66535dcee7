"""Checks of a tokenizer.json: parts that multiply texts, or take very long on them, are refused.

The file may come from an untrusted place. The tokenizers library checks its syntax, but a few bytes
of it can turn one character into millions (`Replace`), or backtrack for hours (`Regex`).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.runtime.errors import ArtifactError
from edge.runtime.text.regex_cost import matching_steps

_MAX_GROWTH = 8  # factor by which all replacements together may lengthen a text
_MAX_ADDED_CHARS = 64  # put before, after or around a text
_MAX_CHARSMAP_BYTES = 48  # of one replacement; the longest of NFKC has 33
_MAX_PIECE_CHARS = 1000  # sentencepiece makes pieces of at most 16
_MAX_STRING_BYTES = 12 * _MAX_PIECE_CHARS  # each character may be written as two \uXXXX
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TABLE = (b'"precompiled_charsmap":', b'"precompiled_charsmap": ')
_ADDED_TEXT = ("prepend", "prefix", "suffix", "cls", "sep", "unk_token", "replacement")
_MAX_REGEX_CHARS = 1000
# Steps for each character of a text that may be tried at one place: GPT-2's expression takes 10.
_MAX_STEPS_PER_CHAR = 32
_COUNTED_CHARS = 1000  # so long a text is assumed


def check_strings(data: bytes, path: Path) -> None:
    """Check the length of all strings but the table of character replacements.

    Before the tokenizers library reads the file: freeing its tree of pieces is recursive, and a
    piece of 200,000 characters overflows the stack.

    Args:
        data: The file.
        path: Its name, for error messages.

    Raises:
        ArtifactError: A string is very long.
    """
    for found in _JSON_STRING.finditer(data):
        length = found.end() - found.start()
        if length > _MAX_STRING_BYTES and not data.endswith(_TABLE, 0, found.start()):
            raise ArtifactError(f"{path}: a string of {length:,} bytes, refused")


def check_components(tokenizer: Any, path: Path) -> int:
    """Check normalizer, pre-tokenizer and decoder.

    Args:
        tokenizer: The tokenizers library's object.
        path: The file, for error messages.

    Returns:
        The largest factor by which the normalizer lengthens a text.

    Raises:
        ArtifactError: One of them multiplies texts, or has a regular expression that can take very
            long.
    """
    growth = {}
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        part = getattr(tokenizer, name)
        growth[name] = 1
        for component in () if part is None else components(json.loads(part.__getstate__())):
            growth[name] *= _check_component(component, name, path)
        if growth[name] > _MAX_GROWTH:
            raise ArtifactError(
                f"{path}: the {name} makes texts up to {growth[name]:,} times longer, more than"
                f" {_MAX_GROWTH} times is refused"
            )
    return growth["normalizer"]


def check_vocabulary(tokenizer: Any, path: Path) -> tuple[int, int]:
    """Check the length of the pieces.

    Returns:
        The number of ids up to the last with a piece, and the length of the longest piece.

    Raises:
        ArtifactError: There are no pieces, or one is very long.
    """
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    if not pieces:
        raise ArtifactError(f"{path}: the vocabulary is empty")
    longest = max(map(len, pieces))
    if longest > _MAX_PIECE_CHARS:
        raise ArtifactError(
            f"{path}: a piece has {longest:,} characters, more than {_MAX_PIECE_CHARS:,}"
        )
    return max(pieces.values()) + 1, max(longest, 1)


def components(values: Any) -> Iterator[Mapping[str, Any]]:
    """Every object with a type, sequences taken apart."""
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            if "type" in value:
                yield value
            pending += value.values()


def _check_component(component: Mapping[str, Any], name: str, path: Path) -> int:
    """Check one component, and return the factor by which it lengthens a text."""
    for field in _ADDED_TEXT:
        text = component.get(field)
        if isinstance(text, str) and len(text) > _MAX_ADDED_CHARS:
            raise ArtifactError(f"{path}: {field} of the {name} has {len(text):,} characters")
    pattern = component.get("pattern")
    if isinstance(pattern, dict) and isinstance(regex := pattern.get("Regex"), str):
        _check_regex(regex, name, path)
    charsmap = component.get("precompiled_charsmap")
    if isinstance(charsmap, str):
        _check_charsmap(charsmap, path)
    content = component.get("content")
    return max(1, len(content)) if isinstance(content, str) else 1


def _check_regex(regex: str, name: str, path: Path) -> None:
    """Refuse a regular expression that may take longer than quadratic time on a text.

    At each place of the text it may take linear time: one part may be repeated without a bound,
    and what may be there or not multiplies only little.
    """
    steps = matching_steps(regex, _COUNTED_CHARS) if len(regex) <= _MAX_REGEX_CHARS else math.inf
    if steps > _MAX_STEPS_PER_CHAR * _COUNTED_CHARS:
        raise ArtifactError(
            f"{path}: the regular expression {regex!r:.80} of the {name} can take very long"
        )


def _check_charsmap(encoded: str, path: Path) -> None:
    """Check the replacements of sentencepiece's precompiled normalization.

    Layout: the size of a trie in 4 bytes (little endian), the trie, and the replacements, each
    ended by a zero byte. Source: `Normalizer::DecodePrecompiledCharsMap` of sentencepiece.
    """
    blob = base64.b64decode(encoded)
    replacements = blob[4 + int.from_bytes(blob[:4], "little") :]
    longest = max(map(len, replacements.split(b"\0")), default=0)
    if longest > _MAX_CHARSMAP_BYTES:
        raise ArtifactError(
            f"{path}: precompiled_charsmap replaces a character by {longest:,} bytes, more than"
            f" {_MAX_CHARSMAP_BYTES}"
        )
