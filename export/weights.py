"""Weights on disk, read one tensor at a time: a model folder's safetensors, or a temporary file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from edge.runtime.artifact import sha256_of
from edge.runtime.errors import EdgeError, ModelError
from edge.train.model.weight_files import WeightFiles


class SafetensorsWeights(Mapping[str, np.ndarray]):
    """The state dict of a model folder: name → float32 array, as transformers stores it (out × in).

    Each access reads the tensor from disk; nothing is cached.
    """

    def __init__(self, folder: Path) -> None:
        """Find the weight files and read their headers.

        Raises:
            ModelError: as `WeightFiles`.
        """
        self._files = WeightFiles(folder)

    def __getitem__(self, name: str) -> np.ndarray:
        # Through torch, because numpy has no bfloat16.
        tensor: np.ndarray = self._files.read(name).float().numpy()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files.shapes)

    def __len__(self) -> int:
        return len(self._files.shapes)

    @property
    def files(self) -> WeightFiles:
        """The files, with the shapes in their headers."""
        return self._files

    @functools.cached_property
    def sha256(self) -> str:
        """The sha256 of the weight file; for a sharded model, of the shards' names and hashes."""
        paths = self._files.paths
        if len(paths) == 1:
            return sha256_of(paths[0])
        lines = "".join(f"{path.name} {sha256_of(path)}\n" for path in paths)
        return hashlib.sha256(lines.encode()).hexdigest()


class StoredWeights(Mapping[str, np.ndarray]):
    """A state dict in a temporary file: name → float32 array.

    A tensor is mapped while an array of it is in use, so that the others take no memory. What is
    changed in an array is not stored. The file has no name, and is gone with the object or the
    process.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the weights.

        Args:
            weights: State-dict name → float32 array.

        Raises:
            EdgeError: The disk is full, or there is no place for temporary files.
        """
        with _temporary_space():
            self._file = tempfile.TemporaryFile(prefix="edge-weights-")  # noqa: SIM115 (closed with the object)
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._mapped: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()
        for name, array in weights.items():
            self._places[name] = (self._file.tell(), array.shape)
            with _temporary_space():
                self._file.write(np.ascontiguousarray(array, dtype=np.float32).data)
        with _temporary_space():
            self._file.flush()

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._mapped.get(name)
        if array is None:
            offset, shape = self._places[name]
            mapped = np.memmap(self._file, np.float32, mode="c", offset=offset, shape=shape)
            self._mapped[name] = array = mapped.view(np.ndarray)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@contextlib.contextmanager
def _temporary_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{tempfile.tempdir}: " if tempfile.tempdir else ""  # chosen by the first file
        raise EdgeError(
            f"{where}weights can't be written to a temporary file ({error.strerror}). Set TMPDIR to"
            " a folder with enough space"
        ) from error


def require_finite(values: np.ndarray, name: str, folder: Path) -> np.ndarray:
    """The values of a weight, if none is NaN or infinite.

    Raises:
        ModelError: One is; the message names the weight.
    """
    if not np.isfinite(values).all():
        raise ModelError(f"{folder}: {name} holds NaN or infinite values; the weights are damaged")
    return values
