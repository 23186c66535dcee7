"""Files of a Hugging Face model folder: size-limited JSON, and the download from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError, first_line
from edge.train.model.training_record import require_json_object

_HUB_PATTERNS = ("*.json", "*.safetensors", "spiece.model", "*.md")


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


def download(hub_id: str, revision: str | None) -> Path:
    """Download a model from the Hugging Face hub, or find it in the local cache.

    Only configuration, tokenizer and safetensors files are downloaded.

    Returns:
        The snapshot folder in the cache.

    Raises:
        ModelError: the model does not exist, or the hub is not reachable.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(_HUB_PATTERNS))
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{hub_id}: not a local folder, and the download from the hub failed"
            f" ({first_line(error)})"
        ) from error
