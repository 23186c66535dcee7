"""A strict reader of GGUF headers, run before llama.cpp opens the file.

llama.cpp aborts the process on some malformed files and the `gguf` library hangs on others. This
reader checks every count and length against the file's size before using it, so that time and
memory stay proportional to the header.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.errors import ArtifactError

TOKENS = "tokenizer.ggml.tokens"
SCORES = "tokenizer.ggml.scores"
TOKEN_TYPES = "tokenizer.ggml.token_type"
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 16
_MAX_KEY = (1 << 16) - 1  # bytes, by the format's specification
_MAX_STRINGS = 1 << 22  # in an array; no artifact may have a larger vocabulary
_MAX_NAME = 63  # bytes; GGML_MAX_NAME without its final zero
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16
_MAX_CHARSMAP = 16 << 20  # bytes
_MAX_PIECE = 4000  # bytes; llama.cpp's prefix tree overflows the stack with a piece of 1 MiB
_LAST_TOKEN_TYPE = 6  # llama_token_type: 1 to 6
_INT32, _FLOAT32, _STRING, _ARRAY = 5, 6, 8, 9
# Value type → struct code.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
# Tensor type → (values per block, bytes per block); only those used in T5 files.
_TENSOR_TYPES = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    20: (32, 18),  # IQ4_NL
    23: (256, 136),  # IQ4_XS
    30: (1, 2),  # BF16
}


@dataclass(frozen=True)
class ArrayInfo:
    """An array of the metadata: the type and number of its values, not the values."""

    element_type: int
    count: int


@dataclass(frozen=True)
class TensorInfo:
    """Shape, type and size of a tensor."""

    shape: tuple[int, ...]  # innermost dimension first, as the file has it
    type: int
    size: int  # bytes


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file."""

    metadata: dict[str, Any]  # scalars and strings as they are, arrays as ArrayInfo
    tensors: dict[str, TensorInfo]


def read_header(path: str | Path) -> GgufHeader:
    """Read and check a GGUF file's header.

    Raises:
        ArtifactError: The file can't be read, is not a GGUF file, or is inconsistent.
    """
    try:
        with Path(path).open("rb") as handle:
            size = handle.seek(0, 2)
            if size == 0:
                raise ArtifactError(f"{path}: the file is empty; export it again")
            with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size, str(path)).header()
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error


class _Reader:
    """Parses a header from `data`, the file's bytes; `size` is their number."""

    def __init__(self, data: mmap.mmap, size: int, path: str) -> None:
        self.data = data
        self.size = size
        self.path = path
        self.at = 0

    def fail(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: damaged GGUF file ({what}); copy or export it again")

    def header(self) -> GgufHeader:
        if self.take(4, "magic number") != _MAGIC:
            raise self.fail("the magic number is missing")
        version = self.number("I")
        if version not in _VERSIONS:
            raise self.fail(f"version {version}")
        tensors, entries = self.number("Q"), self.number("Q")
        # Smallest entry: length, one byte of key, type, one byte; smallest tensor likewise.
        self.expect(entries, 14, "metadata entries")
        self.expect(tensors, 33, "tensors")
        if max(tensors, entries) > _MAX_ENTRIES:
            raise self.fail(f"{tensors} tensors and {entries} metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text(_MAX_KEY, "key")
            if key in metadata:
                raise self.fail(f"{key!r} is repeated")
            metadata[key] = self.value(key)
        return GgufHeader(metadata, self.tensors(tensors, self.alignment(metadata)))

    # -- metadata --------------------------------------------------------------------------------

    def value(self, key: str) -> Any:
        kind = self.number("I")
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text(self.size, f"value of {key!r}")
        if kind == _ARRAY:
            return self.array(key)
        raise self.fail(f"{key!r} has a value of unknown type {kind}")

    def array(self, key: str) -> ArrayInfo:
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            width = struct.calcsize("<" + _SCALARS[kind])
            self.expect(count, width, f"values of {key!r}")
            self.check_values(key, kind, self.take(count * width, "value"))
        elif kind == _STRING:
            self.expect(count, 8, f"values of {key!r}")
            if count > _MAX_STRINGS:
                raise self.fail(f"{count:,} values of {key!r}, more than {_MAX_STRINGS:,}")
            self.strings(key, count)
        else:
            raise self.fail(f"{key!r} is an array of type {kind}")
        return ArrayInfo(kind, count)

    def check_values(self, key: str, kind: int, values: bytes) -> None:
        """Check the arrays that llama.cpp uses unchecked."""
        if key == SCORES and kind == _FLOAT32:
            if not np.isfinite(np.frombuffer(values, "<f4")).all():
                raise self.fail("a score of the vocabulary is not finite")
        elif key == TOKEN_TYPES and kind == _INT32:
            types = np.frombuffer(values, "<i4")
            if types.size and not 1 <= types.min() <= types.max() <= _LAST_TOKEN_TYPE:
                raise self.fail("a type of the vocabulary is unknown")
        elif key == CHARSMAP and values:
            # The size of a table, the table in words of 4 bytes, and strings that end with zero.
            table = int.from_bytes(values[:4], "little")
            is_sound = len(values) > 4 and table % 4 == 0 and table < len(values) - 4
            if not is_sound or values[-1] != 0 or len(values) > _MAX_CHARSMAP:
                raise self.fail("the table of character replacements is malformed")

    def strings(self, key: str, count: int) -> None:
        """Skip an array of strings.

        llama.cpp aborts the process if a vocabulary's pieces are repeated or empty. It ends them at
        a zero, which can make two alike. Long ones crash it.
        """
        pieces: set[bytes] = set()
        length_of: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        data, at, end = self.data, self.at, self.size
        for _ in range(count):
            if at + 8 > end:
                raise self.fail(f"{key!r} is truncated")
            (length,) = length_of(data, at)
            at += 8
            if length > end - at:
                raise self.fail(f"{key!r} is truncated")
            if key == TOKENS:
                pieces.add(data[at : at + length])
            at += length
        self.at = at
        if key == TOKENS and (len(pieces) != count or b"" in pieces):
            raise self.fail("the vocabulary has repeated or empty pieces")
        if any(0 in piece for piece in pieces):
            raise self.fail("a piece of the vocabulary contains a zero byte")
        if max(map(len, pieces), default=0) > _MAX_PIECE:
            raise self.fail(f"a piece of the vocabulary has more than {_MAX_PIECE:,} bytes")

    def alignment(self, metadata: dict[str, Any]) -> int:
        value = metadata.get("general.alignment", 32)
        if type(value) is not int or not 8 <= value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self.fail(f"alignment {value!r}")
        return value

    # -- tensors ---------------------------------------------------------------------------------

    def tensors(self, count: int, alignment: int) -> dict[str, TensorInfo]:
        found: dict[str, TensorInfo] = {}
        offset = 0  # within the data section: tensors follow each other, padded to the alignment
        for _ in range(count):
            name = self.text(_MAX_NAME, "tensor's name")
            if name in found:
                raise self.fail(f"tensor {name!r} is repeated")
            found[name] = info = self.tensor(name)
            if self.number("Q") != offset:
                raise self.fail(f"tensor {name!r} is misplaced")
            offset += -(-info.size // alignment) * alignment
        start = -(-self.at // alignment) * alignment
        last = 0 if not found else info.size
        padding = -(-last // alignment) * alignment - last
        if start + offset - padding > self.size:
            raise self.fail("tensor data is truncated")
        return found

    def tensor(self, name: str) -> TensorInfo:
        dimensions = self.number("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self.fail(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        kind = self.number("I")
        if kind not in _TENSOR_TYPES:
            raise self.fail(f"tensor {name!r} is of unknown type {kind}")
        block, width = _TENSOR_TYPES[kind]
        values = 1
        for length in shape:
            values *= length
            if length < 1 or values > self.size * block:
                raise self.fail(f"tensor {name!r} has the shape {shape}")
        if shape[0] % block:
            raise self.fail(f"tensor {name!r} is not divisible into blocks of {block}")
        return TensorInfo(shape, kind, values // block * width)

    # -- primitives ------------------------------------------------------------------------------

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fail(f"it ends within a {what}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        layout = "<" + code
        return struct.unpack(layout, self.take(struct.calcsize(layout), "number"))[0]

    def text(self, longest: int, what: str) -> str:
        length = self.number("Q")
        if length > longest or (length == 0 and what in ("key", "tensor's name")):
            raise self.fail(f"a {what} of {length} bytes")
        try:
            text = self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"a {what} is not UTF-8") from None
        if "\0" in text:
            raise self.fail(f"a {what} contains a zero byte")
        return text

    def expect(self, count: int, width: int, what: str) -> None:
        if count * width > self.size - self.at:
            raise self.fail(f"{count} {what} in {self.size} bytes")
