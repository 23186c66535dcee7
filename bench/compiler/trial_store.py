"""What a search has done so far, on disk: a search that was cut off continues where it was.

The folder stands beside the output and is one process's at a time. An entry is a small JSON file
that appears whole or not at all; exported artifacts lie beside them under the same names.
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


class Record:
    """The entries of one search; `found` says how many were there when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = sum(1 for _ in folder.glob("entries/*.json"))

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, identity: Mapping[str, Any], output: Path) -> Iterator[Record]:
        """The record in `folder`, emptied before if it is that of another search.

        Args:
            folder: made where it is missing.
            identity: model, data and settings; JSON that must be equal for a record to go on.
            output: named in errors.

        Raises:
            OutputExistsError: the folder holds something that is no record.
            UsageError: another process is at it.
            EdgeError: the place can't be written.
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
                    f"{folder} is in the way: it is no record of a search; move it elsewhere"
                )
            shutil.rmtree(folder)
        _write(folder / _IDENTITY, identity)

    def artifact(self, variant: ArtifactSpec) -> Path:
        return self.folder / "artifacts" / variant.name

    def get(self, name: str) -> dict[str, Any] | None:
        """An entry, or None where it is missing or not whole."""
        found = _read(self._path(name))
        return found if isinstance(found, dict) else None

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep an entry.

        Raises:
            EdgeError: the disk is full, or the place can't be written.
        """
        _write(self._path(name), values)

    def remove(self) -> None:
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
