"""The training record (training.json) in a model folder, as later steps read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError, one_line
from edge.runtime.platform.json_file import read_json

RECORD_NAME = "training.json"
_MAX_BYTES = 64 << 20


def read_training_record(folder: str | Path) -> dict[str, Any]:
    """The record that `edge train` left in `folder`; empty without a usable one."""
    return read_json_object(Path(folder) / RECORD_NAME)


def require_json_object(path: Path) -> dict[str, Any]:
    """A JSON object of at most 64 MiB.

    Raises:
        ModelError: The file is missing, larger, or not a JSON object.
    """
    try:
        values = read_json(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: must be a JSON object")
    return values


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object of at most 64 MiB; empty where the file is missing or anything else."""
    try:
        values = read_json(path, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
