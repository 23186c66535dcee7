"""Output checks: a regular expression, or JSON that conforms to a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from edge.runtime.errors import UsageError, one_line
from edge.runtime.registry import missing_extra


@dataclass(frozen=True)
class RegexOutput:
    """Accepts answers that match a regular expression as a whole.

    Never take patterns from clients: Python's `re` has no time limit.

    Args:
        pattern: A regular expression of Python's `re`.

    Raises:
        UsageError: The pattern is not a regular expression.
    """

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except re.error as error:
            raise UsageError(f"invalid regular expression {self.pattern!r}: {error}") from None

    def __call__(self, text: str) -> str | None:
        """What is wrong with an answer, or None."""
        if self._compiled.fullmatch(text):
            return None
        return f"it does not match the pattern {self.pattern!r}"


class JsonOutput:
    """Accepts answers that are JSON and conform to a JSON Schema.

    References are resolved within the schema only; nothing is fetched.

    Args:
        schema: The schema, of the draft in its "$schema", else 2020-12. True accepts all JSON.

    Raises:
        UsageError: Not a JSON Schema.
        MissingExtraError: jsonschema is not installed.
    """

    def __init__(self, schema: Mapping[str, Any] | bool = True) -> None:
        try:
            import jsonschema
            import referencing
        except ModuleNotFoundError as error:
            raise missing_extra("a JSON Schema", "jsonschema", "schema") from error

        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        try:
            kind.check_schema(cast(dict[str, Any], schema))
        except jsonschema.SchemaError as error:
            raise UsageError(f"invalid JSON Schema: {error.message}") from None
        self.schema = schema
        self._validator = kind(schema, registry=referencing.Registry())
        self._unresolvable = referencing.exceptions.Unresolvable

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonOutput, (self.schema,)  # for worker processes

    def __call__(self, text: str) -> str | None:
        """What is wrong with an answer, or None."""
        from jsonschema.exceptions import best_match

        try:
            value = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            return f"it is not JSON ({one_line(error)})"
        try:
            found = best_match(self._validator.iter_errors(value))
        except self._unresolvable as missing:
            raise UsageError(f"the JSON Schema has an unresolvable reference: {missing}") from None
        except RecursionError:
            return "the JSON Schema has an endless reference to itself"
        return None if found is None else f"at {found.json_path} {found.message}"


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
