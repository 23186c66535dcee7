"""Results of a search on disk, so that an interrupted search continues.

The folder lies beside the output and is locked by one process. An entry is a small JSON file,
written atomically; exported artifacts are in a folder beside the entries.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.bench.compiler.space import ArtifactSpec
from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import read_json
from edge.runtime.platform.lock import lock_file

_IDENTITY = "search.json"
_MAX_BYTES = 256 << 20


class TrialStore:
    """The entries of one search; `found` is the number of entries when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = sum(1 for _ in folder.glob("entries/*.json"))

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, identity: Mapping[str, Any], output: Path) -> Iterator[TrialStore]:
        """Open the store in `folder`; one of another search is emptied first.

        Args:
            folder: created if it is missing.
            identity: model, data and settings as JSON values; a search continues if they are equal.
            output: the search's output, for messages.

        Raises:
            OutputExistsError: the folder contains something else.
            UsageError: another process uses it.
            EdgeError: the folder is not writable.
        """
        with lock_file(folder.with_name(folder.name + ".lock"), output):
            try:
                cls._prepare(folder, json.loads(json.dumps(identity)))
                yield cls(folder)
            finally:
                folder.with_name(folder.name + ".lock").unlink(missing_ok=True)

    @classmethod
    def _prepare(cls, folder: Path, identity: Mapping[str, Any]) -> None:
        known = _read(folder / _IDENTITY)
        if known == identity:
            return
        if folder.exists():
            if known is None and any(folder.iterdir()):
                raise OutputExistsError(
                    f"{folder} already exists and is not the folder of a search; move it elsewhere"
                )
            shutil.rmtree(folder)
        _write(folder / _IDENTITY, identity)

    def artifact(self, spec: ArtifactSpec) -> Path:
        """The folder of an exported artifact."""
        return self.folder / "artifacts" / spec.name

    def get(self, name: str) -> dict[str, Any] | None:
        """An entry, or None if it is missing or damaged."""
        found = _read(self._path(name))
        return found if isinstance(found, dict) else None

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Write an entry.

        Raises:
            EdgeError: the disk is full, or the folder is not writable.
        """
        _write(self._path(name), values)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / "entries" / f"{name}.json"


def _read(path: Path) -> Any:
    try:
        return read_json(path, _MAX_BYTES)
    except (OSError, ValueError):
        return None


def _write(path: Path, values: Any) -> None:
    with new_file(path) as staging:
        staging.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
