"""Values that are put in place of each number and string of a file, and random edits of bytes."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

INTEGERS = (
    0, 1, -1, 2, -2, 7, 63, 64, 127, 128, -128, 255, 256, 32767, 65535, 65536, 10**7,
    2**24, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64,
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-320, 1e308, 0.5)
STRINGS = (
    b"", b"x", b"\0", b"a\0b", b"\xff\xfe", b"../../../../etc/passwd", b"/dev/zero", b"%s%n%x",
    "é😀\u202e".encode(), b"x" * 300, b"x" * (1 << 20),
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A changed file of a folder.

    Attributes:
        name: What was changed; the same name always makes the same file.
        file: The file's name.
        content: Makes the changed content.
    """

    name: str
    file: str
    content: Callable[[], bytes]


def numbers_like(code: str) -> Iterator[bytes]:
    """Every value of INTEGERS or FLOATS that fits a struct code, cut to its width."""
    size = struct.calcsize("<" + code)
    if code in "fd":
        made = [_float(code, value) for value in FLOATS]
    else:
        made = [(value % (1 << 64)).to_bytes(8, "little")[:size] for value in INTEGERS[:-1]]
    yield from dict.fromkeys(made)


def _float(code: str, value: float) -> bytes:
    try:
        return struct.pack("<" + code, value)
    except OverflowError:
        return struct.pack("<" + code, math.inf)


def patched(path: Path, at: int, old: int, new: bytes) -> Callable[[], bytes]:
    """The file with `old` bytes at `at` replaced by `new`."""

    def content() -> bytes:
        data = path.read_bytes()
        return data[:at] + new + data[at + old :]

    return content


def random_bytes(path: Path, seed: int) -> Mutant:
    """A few random edits, most of them near the start of the file, where headers are."""

    def content() -> bytes:
        chance = random.Random(f"{path.name} {seed}")
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 1, 2, 4, 8, 32))):
            end = min(len(data), chance.choice((64, 1024, 16384, len(data))))
            _edit(data, chance.randrange(end) if end else 0, chance)
        return bytes(data)

    return Mutant(f"random {path.name} {seed}", path.name, content)


def _edit(data: bytearray, at: int, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.35:
        data[at : at + 1] = bytes([chance.randrange(256)])
    elif kind < 0.5:
        data[at : at + 1] = bytes([(data[at] if data else 0) ^ (1 << chance.randrange(8))])
    elif kind < 0.7:
        size = chance.choice((1, 2, 4, 8))
        value = chance.choice(INTEGERS) % (1 << (8 * size))
        data[at : at + size] = value.to_bytes(size, "little")
    elif kind < 0.8:
        del data[at : at + chance.choice((1, 4, 100))]
    elif kind < 0.9:
        data[at:at] = chance.randbytes(chance.choice((1, 4, 100)))
    elif kind < 0.97:
        source = chance.randrange(len(data) + 1)
        size = chance.choice((4, 16, 256))
        data[at : at + size] = data[source : source + size]
    else:
        del data[at:]
