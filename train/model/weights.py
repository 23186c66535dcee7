"""A check that weights are safetensors: pickle files can run code when they are loaded."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.errors import ModelError


def require_safetensors(folder: Path, name: str = "model.safetensors") -> None:
    """Refuse a folder without weights in safetensors.

    Args:
        folder: A model or adapter folder.
        name: The weights' file. A model's may be split into several files.

    Raises:
        ModelError: The folder has no such file; says so if its weights are a pickle.
    """
    if (folder / name).is_file():
        return
    if name == "model.safetensors" and any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder}: the weights are a pickle file (.bin), which can run code when it is loaded."
            " Convert them to safetensors"
        )
    raise ModelError(f"{folder}: no {name}")
