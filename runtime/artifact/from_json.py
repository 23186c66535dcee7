"""Conversion of parsed JSON to dataclasses, with the type of every field checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from edge.runtime.errors import ArtifactError

_T = TypeVar("_T")
_MAX_TEXT_CHARS = 1 << 16


def build_dataclass(cls: type[_T], values: Any, where: str) -> _T:
    """A dataclass from parsed JSON, with the type of every field checked.

    Unknown fields are ignored.

    Args:
        cls: The dataclass.
        values: The JSON object.
        where: What is read, for error messages.

    Raises:
        ArtifactError: A field is missing, has another type, or is a very long text.
    """
    if not isinstance(values, Mapping):
        raise ArtifactError(f"{where}: must be an object, not {type(values).__name__}")
    hints = get_type_hints(cls)
    known = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name in values:
            known[item.name] = _convert(
                hints[item.name], values[item.name], f"{where}: {item.name}"
            )
    try:
        return cls(**known)
    except TypeError as error:
        raise ArtifactError(f"{where}: {str(error).partition(') ')[2]}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    if hasattr(kind, "__dataclass_fields__"):
        return build_dataclass(kind, value, where)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ArtifactError(f"{where} must be an object")
        _, inner = get_args(kind)
        return {k: _convert(inner, v, f"{where}.{k:.80}") for k, v in value.items()}
    if get_origin(kind) is tuple:  # of any length, of one type
        if not isinstance(value, list):
            raise ArtifactError(f"{where} must be a list")
        return tuple(_convert(get_args(kind)[0], one, where) for one in value)
    if kind is Any:
        return value
    options = get_args(kind) or (kind,)
    if float in options and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ArtifactError(f"{where} is too large a number") from None
    if type(value) not in options:
        names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
        raise ArtifactError(f"{where} must be {names}, not {type(value).__name__}")
    if isinstance(value, str) and len(value) > _MAX_TEXT_CHARS:
        raise ArtifactError(f"{where} is longer than {_MAX_TEXT_CHARS:,} characters")
    return value
