"""Sweeps over the header fields of GGUF files, CTranslate2's model.bin and safetensors files."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from hostile_json import json_mutants
from hostile_values import STRINGS, Mutant, numbers_like, patched

_GGUF = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class _Scanner:
    """Walks over a binary file and remembers the place of every field."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0
        self.numbers: dict[str, tuple[int, str]] = {}
        self.strings: dict[str, tuple[int, str, int]] = {}

    def number(self, name: str, code: str) -> int | float:
        self.numbers.setdefault(name, (self.at, code))
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self, name: str, length: str) -> bytes:
        start = self.at
        size = int(self.number(f"{name} length", length))
        self.strings.setdefault(name, (start, length, size))
        self.at += size
        return self.data[self.at - size : self.at]

    def mutants(self) -> Iterator[Mutant]:
        for name, (at, code) in self.numbers.items():
            for index, new in enumerate(numbers_like(code)):
                content = patched(self.path, at, len(new), new)
                yield Mutant(f"{self.path.name} {name} #{index}", self.path.name, content)
        for name, (at, code, size) in self.strings.items():
            whole = struct.calcsize("<" + code) + size
            for index, text in enumerate(STRINGS):
                if len(text) < 1 << (8 * struct.calcsize("<" + code)):
                    new = struct.pack("<" + code, len(text)) + text
                    content = patched(self.path, at, whole, self.fill(new, whole))
                    yield Mutant(f"{self.path.name} {name} text #{index}", self.path.name, content)

    def fill(self, new: bytes, old: int) -> bytes:
        """`new` with padding where the format aligns what follows."""
        return new


def _kind(name: str) -> str:
    """A tensor's name without its layer, so that one of each kind is changed."""
    return re.sub(r"\d+", "N", name)


def gguf_mutants(path: Path) -> Iterator[Mutant]:
    """Every field of a GGUF header; of arrays the first entry, of tensors one of each kind."""
    scan = _Scanner(path)
    scan.at = 4
    scan.number("version", "I")
    tensors = int(scan.number("tensors", "Q"))
    for _ in range(int(scan.number("entries", "Q"))):
        key = scan.string("key", "Q").decode()
        kind = int(scan.number(f"{key} type", "I"))
        if kind == _ARRAY:
            inner = int(scan.number(f"{key} element type", "I"))
            for index in range(int(scan.number(f"{key} count", "Q"))):
                _gguf_value(scan, f"{key}[{min(index, 3)}]", inner)
        else:
            _gguf_value(scan, key, kind)
    for _ in range(tensors):
        # The name is known only after it is read, so fields are named by their tensor afterwards.
        start = scan.at
        (size,) = struct.unpack_from("<Q", scan.data, start)
        name = _kind(scan.data[start + 8 : start + 8 + size].decode())
        scan.string(f"tensor {name}", "Q")
        for axis in range(int(scan.number(f"tensor {name} rank", "I"))):
            scan.number(f"tensor {name} dim {axis}", "Q")
        scan.number(f"tensor {name} type", "I")
        scan.number(f"tensor {name} offset", "Q")
    yield Mutant(f"{path.name} magic", path.name, patched(path, 0, 4, b"GGML"))
    yield from scan.mutants()


def _gguf_value(scan: _Scanner, name: str, kind: int) -> None:
    if kind == _STRING:
        scan.string(name, "Q")
    else:
        scan.number(name, _GGUF[kind])


def ctranslate2_mutants(path: Path) -> Iterator[Mutant]:
    """Every field of model.bin's header, and the content of every scalar variable."""
    scan = _Scanner(path)
    scan.number("version", "I")
    scan.string("spec", "H")
    scan.number("revision", "I")
    for _ in range(int(scan.number("variables", "I"))):
        start = scan.at
        (size,) = struct.unpack_from("<H", scan.data, start)
        name = _kind(scan.data[start + 2 : start + 1 + size].decode())
        scan.string(name, "H")
        for axis in range(int(scan.number(f"{name} rank", "B"))):
            scan.number(f"{name} dim {axis}", "I")
        kind = int(scan.number(f"{name} type", "B"))
        size = int(scan.number(f"{name} bytes", "I"))
        start = scan.at
        if size <= 8:
            scan.number(f"{name} value", {0: "f", 1: "b", 2: "h", 3: "i"}.get(kind, "b"))
        scan.at = start + size
    for _ in range(int(scan.number("aliases", "I"))):
        scan.string("alias", "H")
        scan.string("alias of", "H")
    assert scan.at == len(scan.data)
    yield from scan.mutants()


def safetensors_mutants(path: Path, scratch: Path) -> Iterator[Mutant]:
    """Every value of a safetensors header, for one tensor of each kind."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    for index, new in enumerate(numbers_like("Q")):
        yield Mutant(f"{path.name} length #{index}", path.name, patched(path, 0, 8, new))
    kinds = {_kind(name): name for name in header}
    text = scratch / "header.json"
    text.write_text(json.dumps(header), encoding="utf-8")
    for mutant in json_mutants(text):
        place = mutant.name.split(" ")[1].rpartition(".")[0]
        if any(place.startswith(name) for name in kinds.values()) or not place:
            yield Mutant(f"{path.name} {mutant.name}", path.name, _Header(mutant, rest))


class _Header:
    """A safetensors file with a changed header."""

    def __init__(self, header: Mutant, rest: bytes) -> None:
        self.header, self.rest = header, rest

    def __call__(self) -> bytes:
        text = self.header.content()
        return struct.pack("<Q", len(text)) + text + self.rest
