"""Checks of an answer's text: a regular expression, or JSON that conforms to a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.runtime.errors import UsageError
from edge.runtime.registry import missing_extra


@dataclass(frozen=True)
class RegexOutput:
    """Passes what matches `pattern` from its first character to its last.

    Patterns come from whoever runs the model, never from its clients: Python's `re` has no limit
    of time.
    """

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except re.error as error:
            raise UsageError(f"not a regular expression: {error} ({self.pattern!r})") from None

    def __call__(self, text: str) -> str | None:
        if self._compiled.fullmatch(text):
            return None
        return f"it does not match the pattern {self.pattern!r}"


class JsonOutput:
    """Passes JSON that conforms to a JSON Schema (the draft that "$schema" names, else 2020-12).

    References lead nowhere but into the schema itself: nothing is fetched.
    """

    def __init__(self, schema: Mapping[str, Any] | bool = True) -> None:
        """Check the schema itself.

        Raises:
            UsageError: not a JSON Schema.
            MissingExtraError: jsonschema is not installed.
        """
        try:
            import jsonschema
            import referencing
        except ModuleNotFoundError as error:
            raise missing_extra("a JSON Schema", "jsonschema", "schema") from error

        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise UsageError(f"not a JSON Schema: {error.message}") from None
        self.schema = schema
        self._validator = kind(schema, registry=referencing.Registry())
        self._unresolvable = referencing.exceptions.Unresolvable

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonOutput, (self.schema,)  # for worker processes

    def __call__(self, text: str) -> str | None:
        from jsonschema.exceptions import best_match

        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return f"it is not JSON ({error})"
        try:
            found = best_match(self._validator.iter_errors(value))
        except self._unresolvable as missing:
            raise UsageError(f"the JSON Schema refers to what it lacks: {missing}") from None
        except RecursionError:
            return "the JSON Schema refers to itself without end"
        return None if found is None else f"at {found.json_path} {found.message}"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
