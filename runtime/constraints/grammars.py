"""Grammars in llguidance's Lark syntax for regular expressions, JSON Schema and copies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edge.runtime.constraints.vocabulary import TextVocabulary, import_llguidance
from edge.runtime.errors import UsageError

# All tokens that spell a text are allowed: the model chooses as in an answer without constraint.
_HEADER = '%llguidance {"no_forcing": true}\n'
# One space, or a line break with indentation. Without a bound, a model might write nothing else.
_JSON_SPACE = r" |\n[ \t]{0,64}"
_WORD = re.compile(r"\w(?:\S*\w)?")  # up to the last letter or digit before a space
_SPACES = re.compile(r"\s+")
_MAX_SPACES = 64
# Possessive: a request's line without a colon would take quadratic time.
_TERMINAL = re.compile(r"^[ \t]*+([A-Z_][A-Z0-9_]*+)[^:\n]*+:", re.MULTILINE)
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_MAX_TERMINAL = 5_000  # terminals in one: llguidance takes seconds for some more


def lark_grammar(grammar: str) -> str:
    """A Lark grammar as given.

    Raises:
        UsageError: Its terminals grow too large when those that they name are put in.
    """
    parts = _TERMINAL.split(grammar)  # text before the first, then name and definition in turns
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    uses = {
        name: [each for each in _NAME.findall(text) if each in texts]
        for name, text in texts.items()
    }
    for name, size in _sizes(uses):
        if size > _MAX_TERMINAL:
            raise UsageError(
                f"the grammar's terminal {name:.40} consists of over {_MAX_TERMINAL:,} others;"
                " write it as a rule, in lower case"
            )
    return f"{_HEADER}{grammar}"


def _sizes(uses: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int]]:
    """How many definitions each consists of, those that it uses first. A cycle counts once."""
    sizes: dict[str, int] = {}
    for start in uses:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            if name in sizes and sizes[name] > 0:
                waiting.pop()
                continue
            missing = [each for each in uses[name] if each not in sizes]
            if missing and name not in sizes:
                sizes[name] = 0  # begun
                waiting += missing
                continue
            sizes[name] = 1 + sum(sizes[each] for each in uses[name])
            yield name, sizes[name]


def regex_grammar(pattern: str, vocabulary: TextVocabulary) -> str:
    """Texts that a regular expression matches as a whole, in characters that the model can write.

    So a branch that needs other characters is never begun.
    """
    pattern = import_llguidance().regex_to_lark(pattern)
    lines = [_HEADER, f"PATTERN: /{pattern}/\n"]
    if vocabulary.characters is None:
        return "".join([*lines, "start: PATTERN\n"])
    lines += [f"WRITABLE: /{_class(vocabulary.characters)}*/\n", "TEXT: PATTERN & WRITABLE\n"]
    return "".join([*lines, "start: TEXT\n"])


def json_grammar(schema: dict[str, Any], vocabulary: TextVocabulary) -> str:
    """JSON that conforms to a schema.

    Raises:
        UsageError: A name or value of the schema has characters that the model can't write.
    """
    for text in _literals(schema):
        if missing := vocabulary.unwritable(json.dumps(text, ensure_ascii=False)):
            raise UsageError(
                f"this model can't write {text!r:.80} of the JSON Schema: its vocabulary has no"
                f" {missing!r:.80}; extend it with edge train --vocabulary extend"
            )
    given = schema.get("x-guidance")
    options = {"whitespace_pattern": _JSON_SPACE, **(given if isinstance(given, dict) else {})}
    return f"{_HEADER}start: %json {json.dumps({**schema, 'x-guidance': options})}\n"


def copy_grammar(texts: Iterable[str]) -> str:
    """Texts of the words and signs of other texts, in any order.

    A word reaches from its first to its last letter or digit between spaces, as `3.5`, `O'Neil` and
    `co-op`; the signs around it are free. Words stand between spaces, so that no two of them make a
    new one.
    """
    words: dict[str, None] = {}
    signs: set[str] = set()
    spaces = {" "}
    longest = 1
    for text in texts:
        for run in _SPACES.findall(text):
            spaces |= set(run)
            longest = min(max(longest, len(run)), _MAX_SPACES)
        for part in text.split():
            found = _WORD.search(part)
            words |= {found[0]: None} if found else {}
            signs |= set(part.replace(found[0], "", 1) if found else part)
    if not words and not signs:
        return f'{_HEADER}start: ""\n'
    sign = f"{_class(signs)}*" if signs else ""
    word = "(?:" + "|".join(map(_escape, words)) + ")"
    kinds = [f"{sign}{word}{sign}"] if words else []
    kinds += [f"{_class(signs)}+"] if signs else []
    part = f"(?:{'|'.join(kinds)})"
    space = f"{_class(spaces)}{{1,{longest}}}"
    return f"{_HEADER}start: TEXT\nTEXT: /{part}(?:{space}{part})*/\n"


def _class(characters: Iterable[str]) -> str:
    """A character class of a regular expression, in ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges) + "]"


def _escape(text: str) -> str:
    return "".join(
        char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text
    )


def _literals(schema: Any) -> Iterator[str]:
    """Names and values that an answer may have to contain."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            names = value.get("properties")
            yield from _strings([*names] if isinstance(names, dict) else ())
            for name in ("required", "enum"):
                found = value.get(name)
                yield from _strings(found if isinstance(found, list) else ())
            yield from _strings([value.get("const")])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _strings(values: Sequence[object]) -> Iterator[str]:
    yield from (value for value in values if isinstance(value, str))
