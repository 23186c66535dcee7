"""Pointers of Git LFS, which a clone without git-lfs has in place of large files."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.errors import ModelError

_SUFFIXES = (".json", ".model", ".safetensors", ".txt")
_BEGINNING = b"version https://git-lfs"
_MAX_BYTES = 1024  # of a pointer, by its specification


def refuse_lfs_pointers(folder: Path) -> None:
    """Reject a folder of a model, tokenizer or adapter whose large files were not downloaded.

    Raises:
        ModelError: A file is a pointer; the message names it.
    """
    for path in sorted(folder.glob("*")):
        if path.suffix not in _SUFFIXES or not path.is_file() or path.stat().st_size > _MAX_BYTES:
            continue
        with path.open("rb") as file:
            if file.read(len(_BEGINNING)) == _BEGINNING:
                raise ModelError(
                    f"{path}: is a pointer of Git LFS, not the file itself. Run git lfs pull in"
                    " its repository"
                )
