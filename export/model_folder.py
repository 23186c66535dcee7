"""Files of a Hugging Face model folder, read with a limit on their size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError
from edge.train.model.training_record import require_json_object


def read_config(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object from a model folder.

    Args:
        path: the file.
        optional: return {} if the file does not exist.

    Raises:
        ModelError: the file is missing, larger than 64 MiB, or not a JSON object.
    """
    if not path.is_file():
        if optional:
            return {}
        raise ModelError(f"{path.parent}: no {path.name}; not a Hugging Face model folder")
    return require_json_object(path)
