"""Checks of an ONNX graph that ONNX Runtime does not make: files that it reads, and crashes.

A tensor may name another file in the graph's folder that holds its values. ONNX Runtime reads any
such file. Some attributes and inputs that are out of range end the process. This reader walks the
graph, nested graphs included. It skips everything else, so that it takes milliseconds without the
onnx library.

Format: https://protobuf.dev/programming-guides/encoding and onnx.proto3 of ONNX.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_DEPTH = 32  # nested messages
_MAX_LOCATION = 1 << 10  # bytes
_MAX_NAME = 128  # bytes of an operator's or attribute's name that are compared
_MAX_RANK = 8
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
_INPUT, _OUTPUT, _OPERATOR = 1, 2, 4  # fields of Node
_NAME, _INTEGER = 1, 3  # fields of Attribute
# Operators that take any number of inputs, none of which may be left out.
_VARIADIC = (b"Max", b"Min", b"Sum", b"Mean", b"Concat")


def check_graph(artifact: Artifact, name: str) -> None:
    """Check that a graph reads only files of the manifest, and that no node is known to crash.

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
        ArtifactError: The file can't be read, is not an ONNX graph, or has a node that ONNX Runtime
            is known to crash on.
    """
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            if size == 0:
                raise ArtifactError(f"{path}: the file is empty; export it again")
            with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as data:
                reader = _Reader(data)
                reader.read(0, size, "Model", 0)
                return reader.files
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    except _DamagedError as error:
        raise ArtifactError(
            f"{path}: damaged ONNX file ({error}); copy or export it again"
        ) from None


class _DamagedError(Exception):
    """Bytes that are not a protobuf message, or a node out of range."""


@dataclass
class _Message:
    """The fields of one message that are looked at."""

    texts: dict[int, bytes] = field(default_factory=dict)  # the last one of each field
    integer: int = 0
    inputs_missing: int = 0
    outputs: int = 0
    attributes: dict[bytes, int] = field(default_factory=dict)


class _Reader:
    """Walks a model.

    Attributes:
        files: The values with the key "location" of all external data so far.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.files: set[str] = set()
        self._data = data

    def read(self, at: int, end: int, message: str, depth: int) -> _Message:
        """Read the message in data[at:end] and those inside it."""
        if depth > _MAX_DEPTH:
            raise _DamagedError("nested too deeply")
        found, inner = _Message(), _FIELDS[message]
        for number, kind, value, stop in self._fields(at, end):
            if kind == _VARINT:
                if message == "Attribute" and number == _INTEGER:
                    found.integer = value - (1 << 64) if value >> 63 else value
            elif number in inner:
                part = self.read(value, stop, inner[number], depth + 1)
                if message == "Node":
                    name = part.texts.get(_NAME, b"")
                    if name in found.attributes:
                        raise _DamagedError("a node has an attribute twice")
                    found.attributes[name] = part.integer
            elif message == "Node" and number in (_INPUT, _OUTPUT):
                found.inputs_missing += number == _INPUT and value == stop
                found.outputs += number == _OUTPUT
            elif message == "ExternalData" and stop - value > _MAX_LOCATION:
                raise _DamagedError("the name of a file is too long")
            elif message in ("Node", "Attribute", "ExternalData"):
                limit = _MAX_LOCATION if message == "ExternalData" else _MAX_NAME
                found.texts[number] = self._data[value : min(stop, value + limit)]
        if message == "Node":
            _check_node(found)
        elif message == "ExternalData" and found.texts.get(_KEY) == b"location":
            self.files.add(found.texts.get(_VALUE, b"").decode("utf-8", "backslashreplace"))
        return found

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Field number and wire type; then a number's value, or where bytes start and stop.

        Numbers of fixed size are skipped.
        """
        while at < end:
            tag, at = _varint(self._data, at, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = _varint(self._data, at, end)
                yield number, kind, value, at
            elif kind == _BYTES:
                length, at = _varint(self._data, at, end)
                if length > end - at:
                    raise _DamagedError("it is truncated")
                yield number, kind, at, at + length
                at += length
            elif kind in (_FIXED32, _FIXED64):
                at += 4 if kind == _FIXED32 else 8
            else:
                raise _DamagedError(f"wire type {kind}")
        if at != end:
            raise _DamagedError("it is truncated")


def _check_node(node: _Message) -> None:
    """Reject what ends ONNX Runtime's process instead of raising an error."""
    operator = node.texts.get(_OPERATOR, b"")
    if operator == b"Split" and node.attributes.get(b"num_outputs", node.outputs) != node.outputs:
        raise _DamagedError(
            f"a Split into {node.attributes[b'num_outputs']} parts has {node.outputs} outputs"
        )
    if not 0 <= node.attributes.get(b"batch_dims", 0) <= _MAX_RANK:
        raise _DamagedError(f"batch_dims is {node.attributes[b'batch_dims']}")
    if operator in _VARIADIC and node.inputs_missing:
        raise _DamagedError(f"an input of {operator.decode()} is missing")


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
