"""A Unigram tokenizer extended by characters, which leaves all other texts as they were.

A missing character becomes an ordinary piece. A changed one, such as a newline, is replaced by a
private character (U+E000 and up) before the tokenizer's own normalizer and becomes itself again in
the decoder, both inside tokenizer.json. A lost space is one too: the last space of a run stays an
ordinary space, so that the word after it is tokenized as always.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.runtime.errors import ModelError
from edge.train.vocabulary.lost import Lost, is_run, restored
from edge.train.vocabulary.related import related_pieces

# Spaces at the start, at the end and before another space. No anchors: ^ and $ also match at line
# ends in Oniguruma, and JavaScript has no \\A and \\z.
_LOST_SPACE = r"(?<![\s\S]) | (?= )| (?![\s\S])"
_FIRST_PRIVATE, _LAST_PRIVATE = 0xE000, 0xF8FF
_UNUSED_SCORE = -100.0


@dataclass(frozen=True)
class Extension:
    """An extended tokenizer.

    Attributes:
        tokenizer_json: The content of its tokenizer.json.
        added: The id of each added character, and of runs of white space.
        related: For each added id the ids of older pieces that it resembles, at least one.
    """

    tokenizer_json: str
    added: dict[str, int]
    related: dict[int, list[int]] = field(repr=False)


def extend(tokenizer_json: str, lost: Lost, *, taken: Collection[str] = ()) -> Extension:
    """Give lost characters a piece each, in the first ids without one.

    Args:
        tokenizer_json: The content of a tokenizer.json with a Unigram model; it may be extended
            already.
        lost: The characters.
        taken: Characters that must not be used as private ones, since texts contain them.

    Raises:
        ModelError: Not a Unigram tokenizer, or the library can't read the result.
    """
    from tokenizers import Tokenizer

    extension = _extend(tokenizer_json, lost, taken)
    tokenizer = Tokenizer.from_str(extension.tokenizer_json)
    # What a piece alone does not bring back, because a pre-tokenizer drops it, is escaped.
    fine = restored(lost.missing, tokenizer)
    dropped = tuple(c for c, found in zip(lost.missing, fine, strict=True) if not found)
    if not dropped:
        return extension
    missing = tuple(c for c in lost.missing if c not in dropped)
    changed = tuple(sorted({*lost.changed, *dropped}))
    return _extend(tokenizer_json, Lost(missing, changed, runs=lost.runs), taken)


def _extend(tokenizer_json: str, lost: Lost, taken: Collection[str]) -> Extension:
    values = json.loads(tokenizer_json)
    model = values["model"]
    if model.get("type") != "Unigram":
        raise ModelError(f"only Unigram tokenizers can be extended, not {model.get('type')}")
    vocabulary: list[list[Any]] = model["vocab"]
    _include_added_tokens(values, vocabulary)
    older = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    score = _usual_score(vocabulary)
    private = _private_characters(lost.changed, {*older, *taken, *escapes(values).values()})
    added: dict[str, int] = {}
    related: dict[int, list[int]] = {}
    for character in sorted((*lost.missing, *lost.changed)):
        added[character] = number = len(vocabulary)
        vocabulary.append([private.get(character, character), score])
        related[number] = related_pieces(character, older)
    for run in lost.runs:
        if set(run) <= private.keys():
            added[run] = number = len(vocabulary)
            vocabulary.append(["".join(private[c] for c in run), score])
            related[number] = related_pieces(run, older)
    if private:
        _escape(values, private)
    return Extension(json.dumps(values, ensure_ascii=False), added, related)


def escapes(values: Mapping[str, Any]) -> dict[str, str]:
    """The changed characters of an extended tokenizer.json, each with its private character."""
    decoder = values.get("decoder") or {}
    found: dict[str, str] = {}
    for step in decoder.get("decoders") or ():
        pattern = (step.get("pattern") or {}).get("String") if step["type"] == "Replace" else None
        content = step.get("content")
        if (
            isinstance(pattern, str)
            and isinstance(content, str)
            and len(pattern) == len(content) == 1
            and _FIRST_PRIVATE <= ord(pattern) <= _LAST_PRIVATE
        ):
            found[content] = pattern
    return found


def characters_between(older_json: str, newer_json: str) -> dict[str, int] | None:
    """The id of each character that a tokenizer.json adds to another.

    Returns:
        None if the newer one is not the older one extended.
    """
    older, newer = json.loads(older_json), json.loads(newer_json)
    if newer["model"].get("type") != "Unigram" or older["model"].get("type") != "Unigram":
        return {} if older["model"] == newer["model"] else None
    _include_added_tokens(older, older["model"]["vocab"])
    before = [piece for piece, _ in older["model"]["vocab"]]
    pieces = [piece for piece, _ in newer["model"]["vocab"]]
    if pieces[: len(before)] != before:
        return None
    private = {escape: character for character, escape in escapes(newer).items()}
    names = {
        "".join(private.get(character, character) for character in pieces[n]): n
        for n in range(len(before), len(pieces))
    }
    return names if all(len(name) == 1 or is_run(name) for name in names) else None


def related_to_older(older_json: str, added: Mapping[str, int]) -> dict[int, list[int]]:
    """`Extension.related` for characters added to a tokenizer.json."""
    older = json.loads(older_json)
    _include_added_tokens(older, older["model"]["vocab"])
    pieces = {piece: number for number, (piece, _) in enumerate(older["model"]["vocab"])}
    return {number: related_pieces(character, pieces) for character, number in added.items()}


def _include_added_tokens(values: Mapping[str, Any], vocabulary: list[list[Any]]) -> None:
    """Append added tokens that are no pieces of the model yet, so that new ids come after them."""
    tokens = {token["id"]: token["content"] for token in values.get("added_tokens") or ()}
    for number in range(len(vocabulary), max(tokens, default=-1) + 1):
        vocabulary.append([tokens.get(number, f"<unused_{number}>"), _UNUSED_SCORE])
    if vocabulary and min(score for _, score in vocabulary) <= _UNUSED_SCORE:
        lowest = min(score for _, score in vocabulary if score > _UNUSED_SCORE)
        for entry in vocabulary:  # a lower score would change that of unknown characters
            entry[1] = max(entry[1], lowest)


def _usual_score(vocabulary: list[list[Any]]) -> float:
    """The median score of the pieces of one character: it does not change the lowest score."""
    scores = sorted(score for piece, score in vocabulary if len(piece) == 1)
    return float(scores[len(scores) // 2]) if scores else min(score for _, score in vocabulary)


def _private_characters(characters: Collection[str], taken: Collection[str]) -> dict[str, str]:
    free = (chr(n) for n in range(_FIRST_PRIVATE, _LAST_PRIVATE + 1) if chr(n) not in taken)
    return dict(zip(characters, free, strict=False))


def _escape(values: dict[str, Any], private: Mapping[str, str]) -> None:
    """Replace characters by their private ones before the normalizer, and back in the decoder."""
    before = [
        {"type": "Replace", "pattern": {"String": character}, "content": escape}
        for character, escape in private.items()
        if character != " "
    ]
    if " " in private:
        before.append(
            {"type": "Replace", "pattern": {"Regex": _LOST_SPACE}, "content": private[" "]}
        )
    after = [
        {"type": "Replace", "pattern": {"String": escape}, "content": character}
        for character, escape in private.items()
    ]
    values["normalizer"] = _sequence(before, values.get("normalizer"), "normalizers")
    values["decoder"] = _sequence(after, values.get("decoder"), "decoders", last=True)


def _sequence(
    steps: list[dict[str, Any]], present: dict[str, Any] | None, name: str, *, last: bool = False
) -> dict[str, Any]:
    """The steps before the present ones, or after them."""
    inner = [] if present is None else [present]
    if present is not None and present["type"] == "Sequence":
        inner = present[name]
    return {"type": "Sequence", name: [*inner, *steps] if last else [*steps, *inner]}
