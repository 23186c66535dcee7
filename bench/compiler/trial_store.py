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

from edge.bench.compiler.entries import Shape
from edge.bench.compiler.space import ArtifactSpec
from edge.bench.compiler.work_folder import (
    ARTIFACTS_NAME,
    ENTRIES_NAME,
    IDENTITY_NAME,
    foreign_path,
)
from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import read_json
from edge.runtime.platform.lock import lock_file
from edge.runtime.platform.os_errors import readable_os_errors

_MAX_BYTES = 256 << 20


class TrialStore:
    """The entries of one search; `found` is the number of entries when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = sum(1 for _ in folder.glob(f"{ENTRIES_NAME}/*.json"))

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, identity: Mapping[str, Any], output: Path) -> Iterator[TrialStore]:
        """Open the store in `folder`; one of another search is emptied first.

        A store without entries is deleted at the end.

        Args:
            folder: created if it is missing.
            identity: model, data and settings as JSON values; a search continues if they are equal.
            output: the search's output, for messages.

        Raises:
            OutputExistsError: the folder or its lock contains something else.
            UsageError: another process uses it.
            EdgeError: the folder is not writable.
        """
        lock = folder.with_name(folder.name + ".lock")
        if lock.is_file() and lock.stat().st_size:
            raise OutputExistsError(
                f"{lock} already exists and is not the lock of a search; move it elsewhere"
            )
        with lock_file(lock, output):
            try:
                cls._prepare(folder, json.loads(json.dumps(identity)))
                store = cls(folder)
                try:
                    yield store
                finally:
                    if not any(folder.glob(f"{ENTRIES_NAME}/*.json")):
                        store.remove()
            finally:
                lock.unlink(missing_ok=True)

    @classmethod
    def _prepare(cls, folder: Path, identity: Mapping[str, Any]) -> None:
        if folder.is_symlink() or folder.exists():
            with readable_os_errors(folder):
                foreign = foreign_path(folder)
            known = None if foreign else _read(folder / IDENTITY_NAME)
            if known == identity:
                return
            is_search = isinstance(known, dict) and known.keys() == identity.keys()
            if foreign or not (is_search or not any(folder.iterdir())):
                holds = f" (it holds {foreign.name})" if foreign and foreign != folder else ""
                raise OutputExistsError(
                    f"{folder} already exists and is not the folder of a search{holds};"
                    " move it elsewhere"
                )
            shutil.rmtree(folder)
        _write(folder / IDENTITY_NAME, identity)

    def artifact(self, spec: ArtifactSpec) -> Path:
        """The folder of an exported artifact."""
        return self.folder / ARTIFACTS_NAME / spec.name

    def get(self, name: str, is_whole: Shape) -> dict[str, Any] | None:
        """An entry, or None if it is missing or damaged: no JSON object, or not `is_whole`."""
        found = _read(self._path(name))
        return found if isinstance(found, dict) and is_whole(found) else None

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Write an entry.

        Raises:
            EdgeError: the disk is full, or the folder is not writable.
        """
        _write(self._path(name), values)

    def remove(self) -> None:
        """Delete the folder, unless somebody put something else into it."""
        with contextlib.suppress(OSError):
            if foreign_path(self.folder) is None:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / ENTRIES_NAME / f"{name}.json"


def _read(path: Path) -> Any:
    try:
        return read_json(path, _MAX_BYTES)
    except (OSError, ValueError):
        return None


def _write(path: Path, values: Any) -> None:
    with new_file(path) as staging:
        staging.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
