"""Layers of a run's configuration: defaults, presets, files of the user's, the command line.

Each layer overrides the one before, field by field. Whatever is wrong in any of them, wrong names,
wrong types and wrong values, is collected and said at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge.runtime.errors import MissingExtraError, UsageError
from edge.runtime.registry import unknown_name
from edge.train.config import FIELD_NAMES, TrainConfig

_FOLDER = Path(__file__).parent
_REQUIRED = {"data": "DATA", "output": "--output"}
_MOST_BYTES = 1_000_000  # of a configuration file; a larger one is something else


@dataclass(frozen=True)
class Preset:
    """Some fields of `TrainConfig`; kind is "environment" or "aim"."""

    name: str
    kind: str
    about: str
    fields: Mapping[str, object]


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, environments first."""
    found = []
    for path in sorted(_FOLDER.glob("*.yaml")):
        content = read_yaml(path)
        found.append(Preset(path.stem, content["kind"], content["about"], content["fields"]))
    found.sort(key=lambda preset: (preset.kind != "environment", preset.name))
    return {preset.name: preset for preset in found}


def preset_named(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        UsageError: there is none of that name; says which was probably meant.
    """
    if name not in presets():
        raise UsageError(unknown_name("preset", name, tuple(presets())))
    return presets()[name]


def build_config(
    given: Mapping[str, object],
    *,
    names: Sequence[str] = (),
    files: Sequence[Path] = (),
    defaults: Mapping[str, object] | None = None,
) -> TrainConfig:
    """The run that presets, files and `given` (the command line) describe, later layers winning.

    `defaults` lie below all of them.

    Raises:
        UsageError: one sentence per mistake in any of the layers.
        MissingExtraError: PyYAML is not installed.
    """
    problems: list[str] = []
    layers: list[tuple[str, Mapping[str, object]]] = [("", defaults or {})]
    for name in names:
        try:
            layers.append((f"preset {name}", preset_named(name).fields))
        except UsageError as error:
            problems.append(str(error))
    for path in files:
        try:
            layers.append((str(path), read_yaml(path)))
        except UsageError as error:
            problems.append(str(error))
    layers.append(("", given))
    values: dict[str, Any] = {}
    for source, fields in layers:
        values |= _checked(source, fields, problems)
    for name, what in _REQUIRED.items():
        # The rest is checked all the same; the stand-in never leaves this function.
        if name not in values:
            problems.append(f"{what} is missing")
            values[name] = ""
    config = TrainConfig(**values)
    problems += config.problems()
    if problems:
        raise UsageError("; ".join(problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UsageError: no such file, no YAML, or no mapping of names to values.
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "presets and configuration files need PyYAML: pip install 'edge-t5[train]'"
        ) from error

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: larger than 1 MB, which no configuration is")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageError(f"{path}: can't be read ({reason})") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        reason = getattr(error, "problem", None) or "can't be parsed"
        raise UsageError(f"{where}: no YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path}: must hold lines of `name: value`, such as `batch_size: 8`")
    return content


def _checked(source: str, fields: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """Those of the fields that exist and have the right type; the others become problems."""
    good: dict[str, object] = {}
    for key, value in fields.items():
        name = key.replace("-", "_")
        if name not in FIELD_NAMES:
            problems.append(f"{source}: {_unknown_key(key)}")
            continue
        try:
            good[name] = coerce(name, value)
        except ValueError as error:
            label = f"{source}: {key}" if source else f"--{name.replace('_', '-')}"
            problems.append(f"{label} {value!r}: {error}")
    return good


def _unknown_key(key: str) -> str:
    close = difflib.get_close_matches(key.replace("-", "_"), FIELD_NAMES, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else " (`edge train --help` lists the options)"
    return f"unknown key {key!r}{meant}"


def coerce(name: str, value: object) -> object:
    """`value` as the field's type; text from the command line, and YAML's, is parsed.

    Raises:
        ValueError: it is of another type; says which is wanted.
    """
    kinds = _kinds()[name]
    if value is None:
        if type(None) in kinds:
            return None
        raise ValueError("must have a value")
    for kind, convert in _CONVERSIONS.items():
        if kind in kinds:
            return convert(value)
    raise AssertionError(f"no conversion for the type of {name}")  # a new field's type


def _text(value: object) -> str:
    if isinstance(value, (str, Path)):
        return str(value)
    raise ValueError("must be a text")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _whole(value: object) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError("must be a whole number") from None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def _number(value: object) -> float:
    # YAML 1.1 takes 2e-4, without a point, for a text.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise ValueError("must be a number")


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, Iterable):
        names = tuple(value)
        if names and all(isinstance(part, str) and part for part in names):
            return names
    raise ValueError("must be names, such as q,v")


# In this order: a field that may be a Path may be a str.
_CONVERSIONS: dict[Any, Any] = {
    bool: _switch,
    int: _whole,
    float: _number,
    str: _text,
    tuple[str, ...]: _names,
}


@cache
def _kinds() -> dict[str, tuple[Any, ...]]:
    """The types that each field may have."""
    hints = typing.get_type_hints(TrainConfig)
    kinds = {}
    for field in dataclasses.fields(TrainConfig):
        hint = hints[field.name]
        is_union = isinstance(hint, types.UnionType)
        kinds[field.name] = typing.get_args(hint) if is_union else (hint,)
    return kinds
