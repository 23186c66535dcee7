"""A strict reader of a GGUF file's header, run before llama.cpp sees the file.

llama.cpp ends the process on some malformed files and the `gguf` library hangs on others. Here
every count and length is held against the file's size before it is used, so that reading takes time
and memory in proportion to the header at most.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.buckets import inside_table
from edge.runtime.errors import ArtifactError

ARCHITECTURE = "t5"
# Written by our exporter: the longest input or output for which the position bias holds.
POSITION_LIMIT = "edge.position_limit"
TOKENS = "tokenizer.ggml.tokens"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 16
_MAX_KEY = (1 << 16) - 1  # bytes, from the format's description
_MAX_NAME = 63  # bytes; GGML_MAX_NAME less its final zero
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16
_STRING, _ARRAY = 8, 9
# Value type → struct code.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
# Tensor type → (values per block, bytes per block); only those that T5 files are made of.
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
# What llama.cpp may be told about the model: a key that we do not know could make it abort.
_MODEL_KEYS = {
    "attention.head_count", "attention.key_length", "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon", "attention.relative_buckets_count",
    "attention.value_length", "block_count", "context_length", "decoder_block_count",
    "decoder_start_token_id", "embedding_length", "feed_forward_length", "vocab_size",
}  # fmt: skip
_TOKENIZER_KEYS = {
    "add_bos_token", "add_eos_token", "add_space_prefix", "eos_token_id", "model",
    "padding_token_id", "pre", "precompiled_charsmap", "remove_extra_whitespaces", "scores",
    "token_type", "tokens", "unknown_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class ArrayInfo:
    """An array of the metadata: what it holds and how many, but not its values."""

    element_type: int
    count: int


@dataclass(frozen=True)
class TensorInfo:
    shape: tuple[int, ...]  # innermost dimension first, as the file has it
    type: int
    size: int  # bytes


@dataclass(frozen=True)
class GgufHeader:
    metadata: dict[str, Any]  # scalars and strings as they are, arrays as ArrayInfo
    tensors: dict[str, TensorInfo]


def read_header(path: str | Path) -> GgufHeader:
    """Read and check a GGUF file's header.

    Raises:
        ArtifactError: the file can't be read, is no GGUF file, or contradicts itself.
    """
    try:
        with Path(path).open("rb") as handle:
            size = handle.seek(0, 2)
            if size == 0:
                raise ArtifactError(f"{path}: empty, no GGUF file; export it again")
            with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size, str(path)).header()
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error


def check_model(header: GgufHeader, shape: Architecture, positions: int, path: str | Path) -> None:
    """Hold a header against the manifest.

    `positions` is the longest input or output that the artifact allows, in tokens.

    Raises:
        ArtifactError: another architecture, another shape, or too short a table of positions.
    """
    data = header.metadata
    if data.get("general.architecture") != ARCHITECTURE:
        raise ArtifactError(
            f"{path}: its architecture is {data.get('general.architecture')!r}, not 't5'"
        )
    for key in data:
        room, _, name = key.partition(".")
        unknown = (
            (room == ARCHITECTURE and name not in _MODEL_KEYS)
            or (
                key.startswith("tokenizer.")
                and key[len("tokenizer.ggml.") :] not in _TOKENIZER_KEYS
            )
            or room == "split"
        )
        if unknown:
            raise ArtifactError(f"{path}: unexpected key {key!r}; export it again")
    _check_shape(data, shape, path)
    _check_vocabulary(data, shape, path)
    buckets = data.get("t5.attention.relative_buckets_count")
    limit = data.get(POSITION_LIMIT, positions)
    if type(buckets) is not int or not 1 <= buckets <= 1 << 20 or type(limit) is not int:
        raise ArtifactError(f"{path}: the relative position buckets are missing or malformed")
    # One more than the longest distance, as llama.cpp also looks up the cache's empty cells.
    if positions > limit or not inside_table(buckets, positions + 2):
        raise ArtifactError(
            f"{path}: its position bias holds for fewer than {positions} tokens;"
            " export it again with lower limits"
        )


def _check_shape(data: dict[str, Any], shape: Architecture, path: str | Path) -> None:
    expected = {
        "embedding_length": shape.d_model,
        "feed_forward_length": shape.d_ff,
        "block_count": max(shape.num_layers, shape.num_decoder_layers),
        "decoder_block_count": shape.num_decoder_layers,
        "attention.head_count": shape.num_heads,
        "attention.key_length": shape.d_kv,
        "attention.value_length": shape.d_kv,
        "decoder_start_token_id": shape.decoder_start_token_id,
    }
    for key, value in expected.items():
        found = data.get(f"t5.{key}")
        if type(found) is not int or found != value:
            raise ArtifactError(f"{path}: t5.{key} is {found!r}, the manifest says {value}")
    epsilon = data.get("t5.attention.layer_norm_rms_epsilon")
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise ArtifactError(f"{path}: t5.attention.layer_norm_rms_epsilon is {epsilon!r}")


def _check_vocabulary(data: dict[str, Any], shape: Architecture, path: str | Path) -> None:
    model = data.get("tokenizer.ggml.model")
    if model == "none":
        sizes = {"t5.vocab_size": data.get("t5.vocab_size")}
    elif model == "t5":
        names = ("tokens", "scores", "token_type")
        arrays = {f"tokenizer.ggml.{name}": data.get(f"tokenizer.ggml.{name}") for name in names}
        sizes = {key: getattr(array, "count", None) for key, array in arrays.items()}
    else:
        raise ArtifactError(f"{path}: its vocabulary is of kind {model!r}, not 't5' or 'none'")
    for key, size in sizes.items():
        if size != shape.vocab_size:
            raise ArtifactError(
                f"{path}: {key} has {size} entries, the manifest says {shape.vocab_size}"
            )


class _Reader:
    """Walks through a header; `data` is the file, `size` its length in bytes."""

    def __init__(self, data: mmap.mmap, size: int, path: str) -> None:
        self.data = data
        self.size = size
        self.path = path
        self.at = 0

    def fail(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: no sound GGUF file ({what}); copy or export it again")

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
                raise self.fail(f"{key!r} is there twice")
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
            self.at += count * width
        elif kind == _STRING:
            self.expect(count, 8, f"values of {key!r}")
            self.strings(key, count)
        else:
            raise self.fail(f"{key!r} is an array of type {kind}")
        return ArrayInfo(kind, count)

    def strings(self, key: str, count: int) -> None:
        """Pass over an array of strings; a vocabulary's pieces must be distinct and not empty,
        for llama.cpp aborts the process where they are not."""
        pieces: set[bytes] = set()
        length_of: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        data, at, end = self.data, self.at, self.size
        for _ in range(count):
            if at + 8 > end:
                raise self.fail(f"{key!r} ends too early")
            (length,) = length_of(data, at)
            at += 8
            if length > end - at:
                raise self.fail(f"{key!r} ends too early")
            if key == TOKENS:
                pieces.add(data[at : at + length])
            at += length
        self.at = at
        if key == TOKENS and (len(pieces) != count or b"" in pieces):
            raise self.fail("its vocabulary has repeated or empty pieces")

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
                raise self.fail(f"tensor {name!r} is there twice")
            found[name] = info = self.tensor(name)
            if self.number("Q") != offset:
                raise self.fail(f"tensor {name!r} is misplaced")
            offset += -(-info.size // alignment) * alignment
        start = -(-self.at // alignment) * alignment
        last = 0 if not found else info.size
        padding = -(-last // alignment) * alignment - last
        if start + offset - padding > self.size:
            raise self.fail("tensors reach beyond its end: truncated")
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
            raise self.fail(f"tensor {name!r} does not divide into blocks of {block}")
        return TensorInfo(shape, kind, values // block * width)

    # -- bytes -----------------------------------------------------------------------------------

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
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"a {what} is not UTF-8") from None

    def expect(self, count: int, width: int, what: str) -> None:
        if count * width > self.size - self.at:
            raise self.fail(f"{count} {what} in {self.size} bytes")
