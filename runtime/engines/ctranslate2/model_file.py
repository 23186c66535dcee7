"""A strict reader of CTranslate2's model.bin, run before the library opens the file.

CTranslate2 crashes the process on some malformed files. This reader checks every count and length
against the file's size before using it.

Format: `ModelSpec._serialize` in https://github.com/OpenNMT/CTranslate2, binary version 6. All
numbers are little-endian. A string is its length with the final zero (uint16), and its bytes.

    uint32 version, string specification, uint32 revision
    uint32 number of variables, each: string name, uint8 dimensions, uint32 per dimension,
        uint8 type, uint32 size in bytes, the values
    uint32 number of aliases, each: string name, string name of the variable
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.errors import ArtifactError

VERSION = 6
_MAX_NAME = 256  # bytes
_MAX_ENTRIES = 1 << 17
_MAX_DIMENSIONS = 4
# By type id: name and bytes of a value.
_TYPES = (
    ("float32", 4),
    ("int8", 1),
    ("int16", 2),
    ("int32", 4),
    ("float16", 2),
    ("bfloat16", 2),
)


@dataclass(frozen=True)
class Variable:
    """Shape, type and values of a variable; a scalar has the shape ()."""

    shape: tuple[int, ...]
    type: str
    data: memoryview


@dataclass(frozen=True)
class ModelFile:
    """The content of a model.bin."""

    specification: str
    revision: int
    variables: dict[str, Variable]
    aliases: dict[str, str]  # name → name of the variable with the values


def read_model_file(data: bytes, path: str | Path) -> ModelFile:
    """Read and check the structure of a model.bin.

    Args:
        data: The file's content.
        path: The file, for error messages.

    Raises:
        ArtifactError: The file is damaged or of another version.
    """
    return _Reader(data, str(path)).model()


class _Reader:
    """Parses `data` from its start to its end."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data = memoryview(data)
        self.path = path
        self.at = 0

    def fail(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: damaged model file ({what}); copy or export it again")

    def model(self) -> ModelFile:
        version = self.number("I")
        if version != VERSION:
            raise self.fail(f"binary version {version}, not {VERSION}")
        specification, revision = self.text(), self.number("I")
        variables: dict[str, Variable] = {}
        for _ in range(self.count("variables", 9)):
            name = self.text()
            if name in variables:
                raise self.fail(f"variable {name!r} is repeated")
            variables[name] = self.variable(name)
        aliases: dict[str, str] = {}
        for _ in range(self.count("aliases", 4)):
            name, target = self.text(), self.text()
            if name in variables or name in aliases:
                raise self.fail(f"alias {name!r} is repeated")
            if target not in variables:
                raise self.fail(f"alias {name!r} of {target!r}, which does not exist")
            aliases[name] = target
        if self.at != len(self.data):
            raise self.fail(f"{len(self.data) - self.at} bytes after the end")
        return ModelFile(specification, revision, variables, aliases)

    def variable(self, name: str) -> Variable:
        dimensions = self.number("B")
        if dimensions > _MAX_DIMENSIONS:
            raise self.fail(f"variable {name!r} has {dimensions} dimensions")
        shape = tuple(self.number("I") for _ in range(dimensions))
        kind, size = self.number("B"), self.number("I")
        if kind >= len(_TYPES):
            raise self.fail(f"variable {name!r} is of unknown type {kind}")
        type_name, width = _TYPES[kind]
        # The size is written modulo 2³² for variables of 4 GiB or more, which are not supported.
        if min(shape, default=1) < 1 or math.prod(shape) * width != size:
            raise self.fail(f"variable {name!r} of shape {shape} has {size} bytes")
        return Variable(shape, type_name, self.take(size, f"variable {name!r}"))

    # -- primitives ------------------------------------------------------------------------------

    def take(self, count: int, what: str) -> memoryview:
        if count > len(self.data) - self.at:
            raise self.fail(f"it ends within {what}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        layout = "<" + code
        return struct.unpack(layout, self.take(struct.calcsize(layout), "a number"))[0]

    def count(self, what: str, width: int) -> int:
        """A number of entries, each of at least `width` bytes."""
        count: int = self.number("I")
        if count > _MAX_ENTRIES or count * width > len(self.data) - self.at:
            raise self.fail(f"{count} {what} in {len(self.data)} bytes")
        return count

    def text(self) -> str:
        length = self.number("H")
        if not 1 < length <= _MAX_NAME:
            raise self.fail(f"a name of {length} bytes")
        *name, end = self.take(length, "a name")
        if end != 0 or 0 in name:
            raise self.fail("a name does not end with its only zero")
        try:
            return bytes(name).decode("ascii")
        except UnicodeDecodeError:
            raise self.fail("a name is not ASCII") from None
