"""The safetensors files of a model folder, and the names, types and shapes in their headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import ModelError, library_errors, one_line
from edge.train.model.architecture import EMBEDDING, HEAD, check_shapes, read_architecture
from edge.train.model.generation import read_generation
from edge.train.model.training_record import require_json_object
from edge.train.model.weights import DRAFT_HEAD_NAME, pickled_weights

if TYPE_CHECKING:
    import torch

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_PLAIN_NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}\.safetensors")
_SHARD_NAME = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
_FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of the embedding
_ROWS = 4096  # compared at once


class WeightFiles:
    """The weights of a model folder, found as transformers finds them; only headers are read.

    One of the tied copies of the embedding stands for it where it is missing: safetensors'
    `save_model`, among others, keeps one of them.

    Attributes:
        folder: The model folder.
        paths: The files: model.safetensors, or those that its index lists.
        shapes: State-dict name → shape.
    """

    def __init__(self, folder: Path) -> None:
        """Find the files and read their headers.

        Raises:
            ModelError: No safetensors files, a missing or damaged one, an index that does not fit,
                weights that are quantized, or not those of a T5.
        """
        self.folder = folder
        weight_map = {} if (folder / SINGLE_NAME).is_file() else _read_index(folder)
        self.paths = _existing(folder, sorted({*weight_map.values()}) or [SINGLE_NAME])
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[Path, str]] = {}  # name → file, name in the file
        for path in self.paths:
            for name, (kind, shape) in _read_header(path).items():
                if kind not in _FLOAT_TYPES:
                    raise ModelError(
                        f"{path}: {one_line(name, 100)} is stored as {kind}, which are quantized"
                        " weights. Use the model in float32, float16 or bfloat16"
                    )
                self.shapes[name] = shape
                self._places[name] = (path, name)
        for name, file in weight_map.items():
            if name not in self.shapes and name not in (EMBEDDING, *_COPIES, HEAD):
                raise ModelError(
                    f"{folder}: {INDEX_NAME} has {one_line(name, 100)} in {file}, which lacks it."
                    " Download the folder again"
                )
        if EMBEDDING not in self.shapes:
            copy = next((name for name in (*_COPIES, HEAD) if name in self.shapes), None)
            if copy is None:
                raise ModelError(f"{folder}: the weights lack {EMBEDDING}; {self._other_names()}")
            self._places[EMBEDDING] = self._places[copy]
            self.shapes[EMBEDDING] = self.shapes[copy]

    def read(self, name: str) -> torch.Tensor:
        """The tensor of a state-dict name, in the type that it is stored in.

        Raises:
            ModelError: The file is damaged.
        """
        from safetensors import safe_open

        path, stored = self._places[name]
        with (
            library_errors(ModelError, path, f"{name} can't be read"),
            safe_open(path, framework="pt") as handle,
        ):
            tensor: torch.Tensor = handle.get_tensor(stored)
        return tensor

    def require_one_embedding(self) -> None:
        """Refuse an embedding of one stack that differs from the shared one.

        transformers would use it, although config.json can't say so.

        Raises:
            ModelError: There is one; the message names it.
        """
        for name in _COPIES:
            if name in self.shapes and not self._are_equal(name, EMBEDDING):
                raise ModelError(
                    f"{self.folder}: {name} differs from {EMBEDDING}. Encoder and decoder share"
                    " one embedding in T5; separate ones are not supported"
                )

    def _are_equal(self, first: str, second: str) -> bool:
        if self._places[first] == self._places[second]:
            return True
        if self.shapes[first] != self.shapes[second]:
            return False
        parts = zip(self._rows(first), self._rows(second), strict=True)
        return all(bool((one.float() == other.float()).all()) for one, other in parts)

    def _rows(self, name: str) -> Iterator[torch.Tensor]:
        """A matrix, some rows at a time: embeddings may have a gigabyte."""
        from safetensors import safe_open

        path, stored = self._places[name]
        with (
            library_errors(ModelError, path, f"{name} can't be read"),
            safe_open(path, framework="pt") as handle,
        ):
            rows = handle.get_slice(stored)
            for start in range(0, self.shapes[name][0], _ROWS):
                yield rows[start : start + _ROWS]

    def _other_names(self) -> str:
        """What the names of the weights say about the model in place of a T5."""
        for name in self.shapes:
            prefix = name.removesuffix(EMBEDDING)
            if prefix != name and prefix.endswith("."):
                return (
                    f"they have {one_line(name, 100)} instead. Save the model itself without what"
                    " wraps it, such as model.module of DataParallel, or model._orig_mod of"
                    " torch.compile"
                )
        return "not a T5 model"


def checked_weights(folder: Path) -> WeightFiles:
    """The weights of a model folder, if they are those that its config.json asks for.

    Raises:
        ModelError: As `WeightFiles`, or a weight is missing or has another shape; the message
            names it.
    """
    weights = WeightFiles(folder)
    architecture = read_architecture(
        require_json_object(folder / "config.json"),
        tied_head=HEAD not in weights.shapes,
        folder=folder,
        generation=read_generation(folder),
    )
    check_shapes(weights.shapes, architecture, folder)
    weights.require_one_embedding()
    return weights


def _read_index(folder: Path) -> Mapping[str, str]:
    """Weight name → file of a folder whose weights are split, or are not there."""
    index = folder / INDEX_NAME
    if not index.is_file():
        raise ModelError(f"{folder}: {_why_no_weights(folder)}")
    weight_map = require_json_object(index).get("weight_map")
    if weight_map is None:
        raise ModelError(f"{index}: has no weight_map; download it again")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: weight_map must be a JSON object of file names")
    if not all(isinstance(n, str) and _PLAIN_NAME.fullmatch(n) for n in weight_map.values()):
        raise ModelError(f"{folder}: {INDEX_NAME} names files outside of the folder")
    return weight_map


def _why_no_weights(folder: Path) -> str:
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    others = [name for name in others if name != DRAFT_HEAD_NAME]
    shards = [name for name in others if _SHARD_NAME.fullmatch(name)]
    if shards:
        return (
            f"{one_line(shards[0], 100)} is a part of the weights, but {INDEX_NAME}, which lists"
            " all parts, is missing. Download it, too"
        )
    if pickled := pickled_weights(folder):
        return (
            f"{pickled} is a pickle, which is never loaded, because it can run code. Convert it to"
            " safetensors first"
        )
    missing = f"no weights here; {SINGLE_NAME} is missing"
    if others:
        return f"{missing}. Rename {one_line(others[0], 100)} to it if these are the weights"
    return missing


def _existing(folder: Path, names: list[str]) -> list[Path]:
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing; was the download interrupted?")
    return [folder / name for name in names]


def _read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → type and shape of the tensors of a file."""
    from safetensors import safe_open

    with (
        library_errors(ModelError, path, "damaged, or not a safetensors file"),
        safe_open(path, framework="np") as handle,
    ):
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
