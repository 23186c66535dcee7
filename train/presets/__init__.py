"""Configuration of a run in layers: defaults, presets, YAML files, command line.

Each layer overrides the one before, field by field. All unknown names, wrong types and invalid
values of all layers are reported together.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge.runtime.durations import parse_duration
from edge.runtime.errors import UsageError
from edge.runtime.registry import missing_extra, unknown_name
from edge.train.config import FIELD_NAMES, TrainConfig, option

_FOLDER = Path(__file__).parent


class _ShortRepr(reprlib.Repr):
    """Values of YAML files in messages: aliases and numbers may stand for gigabytes of text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        # Printing an integer of thousands of digits is an error.
        return repr(x) if abs(x) < _TOO_LARGE else f"an integer of {x.bit_length()} bits"


_SHOWN = _ShortRepr()
_TOO_LARGE = 10**18  # for an integer option
_REQUIRED = {"data": "DATA", "output": "--output"}
_MAX_BYTES = 1_000_000  # of a configuration file


@dataclass(frozen=True)
class Preset:
    """Values for some fields of `TrainConfig`; `kind` is "environment" or "aim"."""

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
        UsageError: There is no such preset; the message suggests the closest name.
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
    """Merge presets, YAML files and options into a valid configuration.

    Args:
        given: The options of the command line, which override everything else. Text is parsed.
        names: Presets; a later one overrides an earlier one.
        files: YAML files, which override presets.
        defaults: Overridden by everything else.

    Raises:
        UsageError: Names every mistake in any of the layers.
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
        # A placeholder, so that the other fields are checked too.
        if name not in values:
            problems.append(f"{what} is missing")
            values[name] = ""
    config = TrainConfig(**values)
    problems += config.problems()
    if problems:
        raise UsageError("; ".join(problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file.

    Raises:
        UsageError: The file can't be read, is not YAML, or has no mapping of names to values.
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise missing_extra("a preset or a configuration file", "yaml", "train") from error

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: larger than 1 MB; is this a configuration file?")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: can't be read ({reason})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        reason = getattr(error, "problem", None) or "can't be parsed"
        raise UsageError(f"{where}: not valid YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path}: must contain lines of `name: value`, such as `batch_size: 8`")
    return content


def _checked(source: str, fields: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """The fields that exist and have the right type; `problems` get a message for each other."""
    valid: dict[str, object] = {}
    for key, value in fields.items():
        name = key.replace("-", "_")
        if name not in FIELD_NAMES:
            problems.append(f"{source}: {unknown_name('key', key, FIELD_NAMES)}")
            continue
        try:
            valid[name] = coerce(name, value)
        except ValueError as error:
            label = f"{source}: {key}" if source else option(name)
            problems.append(f"{label} {_SHOWN.repr(value)}: {error}")
    return valid


def coerce(name: str, value: object) -> object:
    """Convert `value` to the type of the field `name`; text is parsed.

    Raises:
        ValueError: It has the wrong type; the message says which is expected.
    """
    kinds = _field_types()[name]
    if value is None:
        if type(None) in kinds:
            return None
        raise ValueError("must have a value")
    if float in kinds and str in kinds:
        return _duration(value)
    for kind, convert in _CONVERSIONS.items():
        if kind in kinds:
            return convert(value)
    raise AssertionError(f"no conversion for the type of {name}")


def _duration(value: object) -> float | str:
    """The duration as it was given, after checking that it is one."""
    try:
        if isinstance(value, (int, float, str)):
            parse_duration(value)
            return value
    except UsageError:
        pass
    raise ValueError("must be a duration, such as 90s, 30m or 2h")


def _text(value: object) -> str:
    if isinstance(value, (str, Path)):
        return str(value)
    raise ValueError("must be text")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _integer(value: object) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ValueError("must be an integer") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be an integer")
    if abs(value) >= _TOO_LARGE:
        raise ValueError("must be less than 10^18")
    return value


def _number(value: object) -> float:
    # YAML 1.1 reads 2e-4, without a decimal point, as text.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
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
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    tuple[str, ...]: _names,
}


@cache
def _field_types() -> dict[str, tuple[Any, ...]]:
    """The types that each field of `TrainConfig` may have."""
    hints = typing.get_type_hints(TrainConfig)
    kinds = {}
    for field in dataclasses.fields(TrainConfig):
        hint = hints[field.name]
        is_union = isinstance(hint, types.UnionType)
        kinds[field.name] = typing.get_args(hint) if is_union else (hint,)
    return kinds
