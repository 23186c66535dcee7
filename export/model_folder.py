"""Files of a Hugging Face model folder: size-limited JSON, and the download from the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError

_HUB_PATTERNS = ("*.json", "*.safetensors", "spiece.model", "*.md")
_MAX_JSON_BYTES = 64 << 20


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
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
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path}: too large for a configuration file (limit 64 MiB)")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: invalid JSON ({error})") from None
    if not isinstance(values, Mapping):
        raise ModelError(f"{path}: must be a JSON object")
    return dict(values)


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
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{hub_id}: not a local folder, and the download from the hub failed ({reason})"
        ) from error
