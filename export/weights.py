"""Weights on disk, read one tensor at a time: a model folder's safetensors, or a temporary file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from edge.export.architecture import EMBEDDING, HEAD
from edge.export.model_folder import read_config
from edge.runtime.artifact import sha256_of
from edge.runtime.errors import EdgeError, ModelError, library_errors
from edge.train.model.folder import check_tensor_types
from edge.train.model.weights import pickled_weights

_TIED_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", HEAD)
_SINGLE_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"
_PLAIN_NAME = re.compile(r"[^/\\\0]{1,200}\.safetensors")


class SafetensorsWeights(Mapping[str, np.ndarray]):
    """The state dict of a model folder: name → float32 array, as transformers stores it (out × in).

    Each access reads the tensor from disk; nothing is cached.
    """

    def __init__(self, folder: Path) -> None:
        """Find the weight files and read their headers.

        Raises:
            ModelError: no safetensors files, a missing shard, or a damaged file.
        """
        self._files = _weight_files(folder)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._index: dict[str, Path] = {}
        for path in self._files:
            shapes = _tensor_shapes(path)
            self._shapes |= shapes
            self._index |= dict.fromkeys(shapes, path)
        check_tensor_types(self._files)
        self._aliases: dict[str, str] = {}
        if EMBEDDING not in self._index:
            # safetensors' save_model, among others, keeps one of the tied copies.
            copy = next((name for name in _TIED_COPIES if name in self._index), None)
            if copy is None:
                raise ModelError(f"{folder}: the weights lack {EMBEDDING}; not a T5 model")
            self._aliases[EMBEDDING] = copy
            self._index[EMBEDDING] = self._index[copy]
            self._shapes[EMBEDDING] = self._shapes[copy]

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import safe_open

        path = self._index[name]
        with (
            library_errors(ModelError, path, f"{name} can't be read"),
            safe_open(path, framework="pt") as handle,
        ):
            # Through torch, because numpy has no bfloat16.
            stored = handle.get_tensor(self._aliases.get(name, name))
            tensor: np.ndarray = stored.float().numpy()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """State-dict name → shape, from the file headers."""
        return self._shapes

    @functools.cached_property
    def sha256(self) -> str:
        """The sha256 of the weight file; for a sharded model, of the shards' names and hashes."""
        if len(self._files) == 1:
            return sha256_of(self._files[0])
        lines = "".join(f"{path.name} {sha256_of(path)}\n" for path in self._files)
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


def _weight_files(folder: Path) -> list[Path]:
    single = folder / _SINGLE_NAME
    if single.is_file():
        return [single]
    index = read_config(folder / _INDEX_NAME, optional=True)
    weight_map = index.get("weight_map", {})
    if not isinstance(weight_map, dict):
        raise ModelError(f"{folder / _INDEX_NAME}: weight_map must be a JSON object")
    names = sorted({str(name) for name in weight_map.values()})
    if not all(_PLAIN_NAME.fullmatch(name) for name in names):
        raise ModelError(f"{folder}: {_INDEX_NAME} names files outside of the folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: {missing[0]} is missing; was the download interrupted?")
    if not names:
        pickled = pickled_weights(folder)
        why = (
            f"{pickled} is a pickle, which is never loaded. Convert it to safetensors first"
            if pickled
            else f"no weights here; {_SINGLE_NAME} is missing"
        )
        raise ModelError(f"{folder}: {why}")
    return [folder / name for name in names]


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with (
        library_errors(ModelError, path, "damaged, or not a safetensors file"),
        safe_open(path, framework="pt") as handle,
    ):
        return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
