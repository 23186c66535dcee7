"""Check of the files that a command writes: none destroys an input, an artifact or another one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from edge.cli.param_types import OutputPath

# Parameters that name a model or artifact as text, since it may be a hub id.
_MODELS = ("artifacts", "base", "model", "models", "source")
_STDOUT = Path("-")
_WEIGHTS = (".safetensors", ".bin")


def check_outputs(params: Collection[click.Parameter], values: Mapping[str, Any]) -> None:
    """Check the destinations on a command line before anything is read or written.

    Args:
        params: The command's parameters; those of type `OutputPath` are destinations.
        values: All values of the command by parameter name.

    Raises:
        UsageError: A destination is an input of the command, lies in an artifact, a model folder
            or among the splits of an input, or is that of another option.
    """
    from edge.runtime.errors import UsageError

    outputs = [
        (max(param.opts, key=len), Path(values[param.name]))
        for param in params
        if isinstance(param.type, OutputPath)
        and param.name is not None
        and values.get(param.name) not in (None, _STDOUT)
    ]
    if not outputs:
        return
    inputs = [(path, _place(path)) for path in _inputs(params, values)]
    taken: dict[Path, str] = {}
    for option, path in outputs:
        place = _place(path)
        if place in taken:
            raise UsageError(f"{taken[place]} and {option} name the same file, {path}")
        taken[place] = option
        if kind := _kind_of_folder(place):
            raise UsageError(f"{option} {path} is inside {kind}. Choose a file elsewhere")
        for source, source_place in inputs:
            if place == source_place or _is_split_of(place, source_place):
                raise UsageError(
                    f"{option} {path} would replace an input of this command, {source}. Choose"
                    " another file"
                )


def _inputs(params: Collection[click.Parameter], values: Mapping[str, Any]) -> Iterator[Path]:
    """What the command reads from disk."""
    for param in params:
        if isinstance(param.type, OutputPath) or param.name is None:
            continue
        value = values.get(param.name)
        for one in value if isinstance(value, tuple | list) else (value,):
            is_path = isinstance(one, Path) or (param.name in _MODELS and isinstance(one, str))
            if is_path and os.path.exists(one):  # a hub id is not on disk
                yield Path(one)


def _place(path: Path) -> Path:
    """The path behind symbolic links; unlike Path.resolve, never raises."""
    return Path(os.path.realpath(path))


def _is_split_of(place: Path, folder: Path) -> bool:
    """Whether an existing file is a split in a folder of rows, or part of a saved data set."""
    from edge.runtime.errors import DataError
    from edge.runtime.rows.kinds import SPLITS, is_saved, split_file

    if place.parent != folder or not place.is_file():
        return False
    try:
        return is_saved(folder) or any(split_file(folder, split) == place for split in SPLITS)
    except DataError:
        return True  # two files are the same split


def _kind_of_folder(place: Path) -> str | None:
    """ "the artifact A" or "the model folder M" if the file would be in one."""
    from edge.runtime.artifact.manifest import MANIFEST_NAME

    for folder in (place, *place.parents):
        if os.path.isfile(folder / MANIFEST_NAME):
            return f"the artifact {folder}"
    for folder in (place, place.parent):
        if os.path.isfile(folder / "config.json") and any(
            name.endswith(_WEIGHTS) for name in os.listdir(folder)
        ):
            return f"the model folder {folder}"
    return None
