"""Checks before weights are loaded: no pickle, and files large enough for the config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.artifact.dimensions import DIMENSIONS, minimum_parameters
from edge.runtime.errors import ModelError, library_errors, one_line

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

DRAFT_HEAD_NAME = "draft_head.safetensors"  # of `edge draft fit`, beside the model's weights


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, without a draft head."""
    files = sorted(folder.glob("*.safetensors"))
    return [path for path in files if path.name != DRAFT_HEAD_NAME]


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
    if name == "model.safetensors" and weight_files(folder):
        return
    if pickled_weights(folder):
        raise ModelError(
            f"{folder}: the weights are a pickle file (.bin), which can run code when it is loaded."
            " Convert them to safetensors"
        )
    raise ModelError(f"{folder}: no weights here; {name} is missing")


def pickled_weights(folder: Path) -> str | None:
    """The name of a pickle file with weights in the folder, or None."""
    for pattern in ("pytorch_model*.bin", "adapter_model*.bin"):
        for path in sorted(folder.glob(pattern)):
            return path.name
    return None


def check_dimensions(config: PretrainedConfig, name: str) -> None:
    """Check the dimensions in the config of a T5-family model.

    Args:
        config: The config.
        name: The model, for error messages.

    Raises:
        ModelError: A dimension is not a whole number, or far larger than any T5's.
    """
    for field, (low, high) in DIMENSIONS.items():
        value = getattr(config, field, None)
        if type(value) is not int or not low <= value <= high:
            raise ModelError(
                f"{name}: {field} in config.json is {value!r:.80}, not a whole number from {low} to"
                f" {high}"
            )


def check_capacity(config: PretrainedConfig, folder: Path) -> None:
    """Check that the weight files are large enough for the config, before memory is allocated.

    Raises:
        ModelError: The config describes a larger model than the files hold.
    """
    parameters = minimum_parameters({field: getattr(config, field) for field in DIMENSIONS})
    size = sum(path.stat().st_size for path in weight_files(folder) if path.is_file())
    if parameters > size:  # the smallest data type has a byte per weight
        raise ModelError(
            f"{folder}: config.json describes {parameters:,} weights, more than safetensors"
            f" files of {size:,} bytes can hold"
        )


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
