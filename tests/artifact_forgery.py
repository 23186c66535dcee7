"""Artifacts that are malicious but consistent: the manifest's sizes and hashes match the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.runtime.artifact import sha256_of
from edge.runtime.artifact.manifest import MANIFEST_NAME


def forge(source: Path, folder: Path, change: Callable[[Path], Any]) -> Path:
    """A copy of an artifact, changed, with a manifest that fits."""
    shutil.copytree(source, folder)
    change(folder)
    fit_manifest(folder)
    return folder


def fit_manifest(folder: Path) -> None:
    """Set the sizes and hashes of all listed files in the manifest."""
    path = folder / MANIFEST_NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in values["files"]:
        file = folder / name
        values["files"][name] = {"sha256": sha256_of(file), "size": file.stat().st_size}
    path.write_text(json.dumps(values), encoding="utf-8")
