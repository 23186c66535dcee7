"""Older pieces that a new character resembles, from which its embedding starts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from edge.train.vocabulary.lost import SPACE_MARK

# What T5's tokenizer lacks, by what is used in its place.
_ALIKE = {
    "{": "([",
    "}": ")]",
    "<": "([>",
    ">": ")]",
    "\\": "/|",
    "^": "*'",
    "~": "-",
    "`": "'\"",
    "|": "/",
    "\n": "." + SPACE_MARK,
    "\r": "." + SPACE_MARK,
    "\t": ":" + SPACE_MARK,
    SPACE_MARK: "_-",
}
_MAX_RELATED = 64


def related_pieces(character: str, pieces: Mapping[str, int]) -> list[int]:
    """Ids of at least one and at most 64 pieces that a character resembles.

    In this order: characters with the same use, those that it consists of (é → e, ² → 2), letters
    of the same script and case, characters of the same general category, any single character.

    Args:
        character: The new character, or a run of white space: like all of its characters.
        pieces: The older pieces with their ids.
    """
    if len(character) > 1:
        found = [piece for c in dict.fromkeys(character) for piece in related_pieces(c, pieces)]
        return list(dict.fromkeys(found))[:_MAX_RELATED]
    alike = [pieces[c] for c in _ALIKE.get(character, "") if c in pieces]
    if alike:
        return alike
    if character.isspace() and SPACE_MARK in pieces:
        return [pieces[SPACE_MARK]]
    parts = [c for c in unicodedata.normalize("NFKD", character) if c != character]
    of_parts = [pieces[c] for c in parts if c in pieces and not unicodedata.combining(c)]
    if of_parts:
        return of_parts[:_MAX_RELATED]
    single = {piece: number for piece, number in pieces.items() if len(piece) == 1}
    kind = _kind(character)
    for length in (3, 2, 1):  # script and category, category, its first letter
        similar = [n for piece, n in single.items() if _kind(piece)[:length] == kind[:length]]
        if similar:
            return similar[:_MAX_RELATED]
    return list(single.values())[:_MAX_RELATED] or list(pieces.values())[:1]


def _kind(character: str) -> tuple[str, str, str]:
    """First letter of the general category, the category, and the script: L, Lu, CYRILLIC.

    The script is the first word of the character's Unicode name.
    """
    category = unicodedata.category(character)
    return category[0], category, unicodedata.name(character, "").partition(" ")[0]
