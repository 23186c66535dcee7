"""A reader of the files that an ONNX graph takes weights from.

A tensor may name another file in the graph's folder that holds its values. ONNX Runtime reads any
such file. This reader walks the graph, nested graphs included, and returns the names. It skips
everything else, so that it takes milliseconds without the onnx library.

Format: https://protobuf.dev/programming-guides/encoding and onnx.proto3 of ONNX.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_DEPTH = 32  # nested messages
_MAX_LOCATION = 1 << 10  # bytes
# Message → field number → message inside it; only those that can lead to a tensor.
_FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
    "ExternalData": {},
}
_KEY, _VALUE = 1, 2  # fields of ExternalData


def check_external_data(artifact: Artifact, name: str) -> None:
    """Check that a graph of an artifact reads weights only from files in the manifest.

    Raises:
        ArtifactError: The graph can't be read, is damaged, or names another file.
    """
    path = artifact.path(name)
    for location in sorted(external_files(path)):
        if location not in artifact.manifest.files:
            raise ArtifactError(
                f"{path}: it reads weights from {location!r:.200}, which is not in the manifest;"
                " export it again"
            )


def external_files(path: Path) -> set[str]:
    """Names of the files that a graph takes weights from, as written in the graph.

    Raises:
        ArtifactError: The file can't be read, or is not an ONNX graph.
    """
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            if size == 0:
                raise ArtifactError(f"{path}: the file is empty; export it again")
            with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as data:
                return set(_locations(data, 0, size, "Model", 0))
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    except _DamagedError as error:
        raise ArtifactError(
            f"{path}: damaged ONNX file ({error}); copy or export it again"
        ) from None


class _DamagedError(Exception):
    """Bytes that are not a protobuf message."""


def _locations(data: mmap.mmap, at: int, end: int, message: str, depth: int) -> Iterator[str]:
    """The values with the key "location" of all external data in data[at:end]."""
    if depth > _MAX_DEPTH:
        raise _DamagedError("nested too deeply")
    inner = _FIELDS[message]
    key = value = b""
    while at < end:
        tag, at = _varint(data, at, end)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise _DamagedError("it is truncated")
            if field in inner:
                yield from _locations(data, at, at + length, inner[field], depth + 1)
            elif message == "ExternalData":
                if length > _MAX_LOCATION:
                    raise _DamagedError("the name of a file is too long")
                text = data[at : at + length]
                if field == _KEY:
                    key = text
                elif field == _VALUE:
                    value = text
            at += length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise _DamagedError(f"wire type {kind}")
    if at != end:
        raise _DamagedError("it is truncated")
    if message == "ExternalData" and key == b"location":
        yield value.decode("utf-8", "backslashreplace")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits at `at`, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _DamagedError("it is truncated")
