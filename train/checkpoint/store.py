"""Checkpoints that are complete or not there, and prove it when they are read.

A checkpoint is a folder `step-000000120`: tensors in safetensors, the rest in JSON, and a manifest
with the size and sha256 of each file and with what the checkpoint belongs to. It is built under a
hidden name, flushed to disk and renamed (`edge.runtime.platform.atomic`). Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.platform.json_file import read_json

if TYPE_CHECKING:
    import torch

SCHEMA = 2
_MANIFEST, _TENSORS, _PLAIN = "manifest.json", "state.safetensors", "state.json"
_MOST_MANIFEST_BYTES = 1_000_000
_SAYS = {
    "model": "another model (its weights or shape differ)",
    "tokenizer": "another tokenizer",
    "data": "other rows or another prompt",
}


@dataclass(frozen=True)
class Checkpoint:
    """A verified one. `identity` is what it belongs to; tensors are read to the CPU."""

    folder: Path
    step: int
    identity: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / _PLAIN).read_text(encoding="utf-8"))
        return content

    def tensors(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        loaded: dict[str, torch.Tensor] = load_file(self.folder / _TENSORS)
        return loaded


def write_checkpoint(
    place: Path,
    step: int,
    identity: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    plain: Mapping[str, Any],
) -> Path:
    """Write `place`/step-…; it is visible only when all of it is on the disk.

    Raises:
        EdgeError: the disk is full or the place can't be written; nothing is left behind.
    """
    from safetensors.torch import save_file

    destination = place / f"step-{step:09d}"
    with new_folder(destination, force=True) as folder:
        save_file(dict(tensors), folder / _TENSORS)
        (folder / _PLAIN).write_text(json.dumps(plain), encoding="utf-8")
        files = {name: _describe(folder / name) for name in (_TENSORS, _PLAIN)}
        manifest = {"schema": SCHEMA, "step": step, "identity": identity, "files": files}
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return destination


def steps_in(place: Path) -> list[int]:
    """The steps of the checkpoints there, ascending; they need not be sound."""
    names = (path.name.removeprefix("step-") for path in place.glob("step-*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def open_checkpoint(place: Path, step: int) -> Checkpoint:
    """The checkpoint of that step, its files checked against their checksums.

    Raises:
        EdgeError: a file is missing or altered, or it is of another version of this program.
    """
    folder = place / f"step-{step:09d}"
    try:
        path = folder / _MANIFEST
        manifest = read_json(path, _MOST_MANIFEST_BYTES)
        if manifest["schema"] != SCHEMA or manifest["step"] != step:
            raise ValueError("its manifest is of another version or step")
        for name in (_TENSORS, _PLAIN):
            if _describe(folder / name) != manifest["files"][name]:
                raise ValueError(f"{name} is not what was written")
        return Checkpoint(folder, step, dict(manifest["identity"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EdgeError(f"{folder}: this checkpoint is damaged ({reason})") from error


def newest_checkpoint(place: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint, and what is wrong with those that are newer."""
    complaints: list[str] = []
    for step in reversed(steps_in(place)):
        try:
            return open_checkpoint(place, step), complaints
        except EdgeError as error:
            complaints.append(str(error))
    return None, complaints


def prune(place: Path, keep: Iterable[int]) -> None:
    """Remove the checkpoints of all other steps, and what a killed process left half written."""
    wanted = set(keep)
    for step in steps_in(place):
        if step not in wanted:
            shutil.rmtree(place / f"step-{step:09d}", ignore_errors=True)
    for leftover in place.glob(".step-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def require_same(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse to go on from what another run left.

    Raises:
        UsageError: its model, tokenizer, rows or options are others; says which.
    """
    saved = checkpoint.identity
    found = [text for name, text in _SAYS.items() if saved.get(name) != identity[name]]
    before, now = saved.get("config"), identity["config"]
    if not isinstance(before, dict):
        before = {}
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            found.append(
                f"--{name.replace('_', '-')} {before.get(name)} where this run has {now.get(name)}"
            )
    if found:
        raise UsageError(
            f"{checkpoint.folder}: the checkpoint is of another run: {'; '.join(found)}. Give the"
            " options it was started with, or leave out --resume and give --force to start anew"
        )


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}
