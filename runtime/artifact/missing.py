"""What a path that is not an artifact is instead, for the message."""

from __future__ import annotations

from pathlib import Path

_HUB_ENCODER = "encoder_model.onnx"  # written by `edge export --layout hub`
_MAX_NAMED = 8


def missing_hint(path: Path, manifest_name: str) -> str:
    """A sentence, with a space before it, that says what to use instead; may be empty.

    Args:
        path: A path without a manifest in it.
        manifest_name: File name of manifests.
    """
    if (path / _HUB_ENCODER).is_file():
        return (
            " It contains ONNX files in the hub layout: load it with Optimum's"
            " ORTModelForSeq2SeqLM or with transformers.js, or export the model again without"
            " --layout hub"
        )
    if (path / "config.json").is_file():
        return f" This is a model folder: edge export {path} --format all --output DIR"
    if path.is_dir():
        return _inner_artifacts(path, manifest_name)
    if not path.exists():
        return " There is no such folder."
    if (path.parent / manifest_name).is_file():
        return f" It is a file of the artifact {path.parent}: give that folder"
    return " It is a file: give the folder of an artifact"


def _inner_artifacts(folder: Path, manifest_name: str) -> str:
    """The artifacts one or two levels below a folder, such as a quickstart's output."""
    for pattern in (f"[!.]*/{manifest_name}", f"[!.]*/[!.]*/{manifest_name}"):
        inner = sorted(str(path.parent) for path in folder.glob(pattern))
        if inner:
            more = f" and {len(inner) - _MAX_NAMED} more" if len(inner) > _MAX_NAMED else ""
            return f" It contains several artifacts: {', '.join(inner[:_MAX_NAMED])}{more}"
    return ""
