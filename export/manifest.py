"""The manifest of an artifact under construction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.artifact import sha256_of
from edge.runtime.artifact.manifest import MANIFEST_NAME, FileInfo, Manifest, Source
from edge.runtime.hub import is_hub_id
from edge.train.output.model_card import CARD_NAME

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from edge.export.source import SourceModel


def file_info(path: Path) -> FileInfo:
    """Size and sha256 of a file, as the manifest lists them."""
    return FileInfo(sha256_of(path), path.stat().st_size)


def list_files(folder: Path) -> dict[str, FileInfo]:
    """All files of a folder but the manifest itself, by name."""
    return {
        path.name: file_info(path)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the artifact's folder."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def source_info(source: SourceModel) -> Source:
    """The model that an artifact is made from, and the hub model that it was trained from."""
    base, commit = source.training.get("model"), source.training.get("revision")
    known = isinstance(base, str) and isinstance(commit, str) and is_hub_id(base)
    return Source(
        model=source.name,
        weights_sha256=source.weights_sha256,
        revision=source.revision,
        base_model=base if known else None,
        base_revision=commit if known else None,
    )


def task_settings(source: SourceModel) -> dict[str, dict[str, Any]]:
    """The manifest's `task_specific_params`: prefix and supported options of each task."""
    return {
        task: {"prefix": saved.values.get("prefix") or "", **saved.options}
        for task, saved in source.tasks.items()
    }


def add_card(manifest: Manifest, card: ModelCard, folder: Path) -> Manifest:
    """Write an artifact's model card; the manifest with its size and hash."""
    card.save(folder / CARD_NAME)
    return dataclasses.replace(
        manifest, files={**manifest.files, CARD_NAME: file_info(folder / CARD_NAME)}
    )
