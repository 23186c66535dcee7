"""Checks of weights: no pickle, and only finite values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import ModelError, library_errors, one_line

if TYPE_CHECKING:
    import torch

DRAFT_HEAD_NAME = "draft_head.safetensors"  # of `edge draft fit`, beside the model's weights


def require_safetensors(folder: Path, name: str) -> None:
    """Refuse a folder without a file of weights in safetensors.

    Args:
        folder: An adapter folder.
        name: The weights' file.

    Raises:
        ModelError: The folder has no such file; says so if its weights are a pickle.
    """
    if (folder / name).is_file():
        return
    if pickled := pickled_weights(folder):
        raise ModelError(
            f"{folder}: {pickled} is a pickle, which can run code when it is loaded. Convert it to"
            " safetensors"
        )
    raise ModelError(f"{folder}: no weights here; {name} is missing")


def pickled_weights(folder: Path) -> str | None:
    """The name of a pickle file with weights in the folder, or None."""
    for pattern in ("pytorch_model*.bin", "adapter_model*.bin"):
        for path in sorted(folder.glob(pattern)):
            return path.name
    return None


def require_finite(
    weights: Iterable[tuple[str, torch.Tensor]], name: str, cause: str = "the weights are damaged"
) -> None:
    """Reject NaN and infinite weights.

    Args:
        weights: Names and tensors, of a model or of its files.
        name: The model, for the error message.
        cause: The likely cause, for the error message.

    Raises:
        ModelError: A weight is not finite; the message names it.
    """
    for weight_name, weight in weights:
        if weight.is_floating_point() and not weight.isfinite().all():
            shown = one_line(weight_name, 100)
            raise ModelError(f"{name}: {shown} holds NaN or infinite values; {cause}")


def stored_weights(paths: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of safetensors files, read one at a time.

    Raises:
        ModelError: A file is damaged.
    """
    from safetensors import safe_open

    for path in paths:
        with (
            library_errors(ModelError, path, "damaged, or not a safetensors file"),
            safe_open(path, framework="pt") as handle,
        ):
            for name in handle.keys():  # noqa: SIM118
                yield name, handle.get_tensor(name)
