"""Checks of the generation options that constrain an answer's text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from edge.runtime.platform.json_file import is_unicode, parse_json

KINDS = ("choices", "regex", "json_schema", "grammar", "copy_only")
MAX_CHOICES = 10_000
MAX_CHOICE_CHARS = 1_000
MAX_REGEX_CHARS = 1 << 16
MAX_SCHEMA_CHARS = MAX_GRAMMAR_CHARS = 1 << 20
_MAX_ALLOWED_TEXTS = 1_000


def json_text(schema: object) -> object:
    """A JSON Schema as JSON text, if it is given as a mapping; anything else as it is."""
    if not isinstance(schema, Mapping):
        return schema
    try:
        return json.dumps(dict(schema), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return schema  # `constraint_problems` refuses it


def constraint_problems(
    choices: object,
    regex: object,
    json_schema: object,
    grammar: object,
    copy_only: object,
    copy_allow: object,
) -> Iterator[str]:
    """What is wrong with the constraints, by the names of `GenerationOptions`."""
    values = (choices, regex, json_schema, grammar, copy_only)
    given = [
        name
        for name, value in zip(KINDS, values, strict=True)
        if value is not None and value is not False
    ]
    if len(given) > 1:
        yield f"{' and '.join(given)} can't be combined; use one of them"
    if choices == ():
        yield "choices must be at least one text"
    elif choices is not None:
        yield from _texts("choices", choices, MAX_CHOICES, MAX_CHOICE_CHARS)
    yield from _texts("copy_allow", copy_allow, _MAX_ALLOWED_TEXTS, MAX_CHOICE_CHARS)
    yield from _text("regex", regex, MAX_REGEX_CHARS)
    yield from _text("grammar", grammar, MAX_GRAMMAR_CHARS)
    yield from _schema(json_schema)
    if type(copy_only) is not bool:
        yield f"copy_only must be true or false, not {copy_only!r:.80}"
    elif copy_allow != () and not copy_only:
        yield "copy_allow needs copy_only"


def _texts(name: str, values: object, most: int, longest: int) -> Iterator[str]:
    if not isinstance(values, tuple) or not all(isinstance(text, str) for text in values):
        yield f"{name} must be a list of texts"
    elif len(values) > most or max(map(len, values), default=0) > longest:
        yield f"{name} must be at most {most:,} texts of at most {longest:,} characters"
    elif not is_unicode(values):
        yield f"{name} holds a lone surrogate, which is not valid Unicode"


def _text(name: str, value: object, longest: int) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        yield f"{name} must be a text that is not empty, not {value!r:.80}"
    elif len(value) > longest:
        yield f"{name} must have at most {longest:,} characters, not {len(value):,}"
    elif not is_unicode(value):
        yield f"{name} holds a lone surrogate, which is not valid Unicode"


def _schema(value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, str):
        yield f"json_schema must be a JSON object or its text, not {value!r:.80}"
        return
    problems = [*_text("json_schema", value, MAX_SCHEMA_CHARS)]
    yield from problems
    if problems:
        return
    try:
        schema = parse_json(value)
    except ValueError as error:
        yield f"json_schema is {error}"
        return
    if not isinstance(schema, dict):
        yield f"json_schema must be a JSON object, not {value!r:.80}"
        return
    try:
        json.dumps(schema, allow_nan=False)
    except ValueError:
        yield "json_schema is not JSON: NaN and Infinity are not numbers of JSON"
