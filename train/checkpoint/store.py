"""Checkpoint folders on disk: written atomically, verified when they are opened.

A checkpoint is a folder `step-000000120` with tensors in safetensors, the other state in JSON, and
a manifest with the size and SHA-256 of each file and the run's fingerprint. It is built under a
hidden name, flushed to disk and renamed (`edge.runtime.platform.atomic`). Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import EdgeError, UsageError, error_reason, is_panic
from edge.runtime.platform.atomic import new_folder
from edge.runtime.platform.json_file import read_json

if TYPE_CHECKING:
    import torch

SCHEMA = 3
_MANIFEST, _TENSORS, _JSON = "manifest.json", "state.safetensors", "state.json"
_MAX_MANIFEST_BYTES = 1_000_000
_MAX_JSON_BYTES = 100_000_000  # mostly generators: 15 KB for each process
_DIFFERENCES = {
    "model": "another model (its weights or their shapes differ)",
    "tokenizer": "another tokenizer",
    "data": "other rows or another prompt",
}


class CheckpointError(EdgeError):
    """A damaged checkpoint."""

    exit_code = 2


@contextlib.contextmanager
def checkpoint_errors(folder: Path, advice: str = "") -> Iterator[None]:
    """The boundary around reading and applying the checkpoint in `folder`.

    Args:
        folder: The checkpoint.
        advice: What to do, at the end of the message.

    Raises:
        CheckpointError: Anything was raised inside the `with` block, except if memory ran out.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise  # Ctrl-C, for example
        if isinstance(error, Exception) and should_reduce_batch_size(error):
            raise
        damage = f"{folder}: this checkpoint is damaged ({error_reason(error)})"
        reason = str(error) if isinstance(error, CheckpointError) else damage
        raise CheckpointError(f"{reason}{advice}") from error


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. `fingerprint` identifies the run that wrote it."""

    folder: Path
    step: int
    fingerprint: Mapping[str, Any]

    def json_state(self) -> dict[str, Any]:
        """The state that is not tensors.

        Raises:
            OSError, ValueError: The file can't be read.
        """
        content = read_json(self.folder / _JSON, _MAX_JSON_BYTES)
        if not isinstance(content, dict):
            raise ValueError(f"{_JSON} is not a JSON object")
        return content

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name, on the CPU.

        Raises:
            OSError, SafetensorError: The file can't be read.
        """
        from safetensors.torch import load_file

        loaded: dict[str, torch.Tensor] = load_file(self.folder / _TENSORS)
        return loaded


def write_checkpoint(
    folder: Path,
    step: int,
    fingerprint: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    json_state: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` into `folder`; it appears when it is complete and on disk.

    Raises:
        EdgeError: The disk is full or the folder can't be written; nothing is left behind.
    """
    from safetensors.torch import save_file

    destination = checkpoint_path(folder, step)
    with new_folder(destination, force=True) as building:
        save_file(dict(tensors), building / _TENSORS)
        (building / _JSON).write_text(json.dumps(json_state), encoding="utf-8")
        files = {name: _describe(building / name) for name in (_TENSORS, _JSON)}
        manifest = {"schema": SCHEMA, "step": step, "fingerprint": fingerprint, "files": files}
        (building / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return destination


def checkpoint_path(folder: Path, step: int) -> Path:
    """The checkpoint of `step` in `folder`."""
    return folder / f"step-{step:09d}"


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in `folder`, ascending, whether or not they are valid."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def open_checkpoint(folder: Path, step: int) -> Checkpoint:
    """Open the checkpoint of `step` after reading all of it and comparing the checksums.

    Raises:
        CheckpointError: A file is missing, altered or can't be read, a number is NaN or infinite,
            or another version of this program wrote it.
    """
    path = checkpoint_path(folder, step)
    with checkpoint_errors(path):
        manifest = read_json(path / _MANIFEST, _MAX_MANIFEST_BYTES)
        if manifest["schema"] != SCHEMA or manifest["step"] != step:
            raise ValueError("its manifest is of another version or step")
        for name in (_TENSORS, _JSON):
            if not (path / name).is_file():  # a named pipe would wait forever
                raise ValueError(f"{name} is missing")
            if _describe(path / name) != manifest["files"][name]:
                raise ValueError(f"{name} was altered")
        checkpoint = Checkpoint(path, step, dict(manifest["fingerprint"]))
        checkpoint.json_state()
        for name, tensor in checkpoint.tensors().items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name:.80} holds NaN or infinite values")
    return checkpoint


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint in `folder`, and a message for each newer one that is damaged."""
    damaged: list[str] = []
    for step in reversed(steps_in(folder)):
        try:
            return open_checkpoint(folder, step), damaged
        except CheckpointError as error:
            damaged.append(f"{error}; it is passed over")
    return None, damaged


def prune(folder: Path, keep: Iterable[int]) -> None:
    """Delete the checkpoints of all steps but `keep`, and what a killed process left unfinished."""
    kept = set(keep)
    for step in steps_in(folder):
        if step not in kept:
            shutil.rmtree(checkpoint_path(folder, step), ignore_errors=True)
    for unfinished in folder.glob(".step-*.partial"):
        shutil.rmtree(unfinished, ignore_errors=True)


def require_same_run(checkpoint: Checkpoint, fingerprint: Mapping[str, Any]) -> None:
    """Check that a run with this `fingerprint` wrote `checkpoint`.

    Raises:
        UsageError: Its model, tokenizer, rows or options differ; the message says which.
    """
    saved = checkpoint.fingerprint
    found = [text for name, text in _DIFFERENCES.items() if saved.get(name) != fingerprint[name]]
    before, now = saved.get("config"), fingerprint["config"]
    if not isinstance(before, dict):
        before = {}
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            found.append(
                f"--{name.replace('_', '-')} {before.get(name)!s:.80} where this run has"
                f" {now.get(name)}"
            )
    if found:
        raise UsageError(
            f"{checkpoint.folder}: the checkpoint is of another run: {'; '.join(found)}. Use the"
            " options that run was started with, or replace --resume by --force to start over"
        )


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}
