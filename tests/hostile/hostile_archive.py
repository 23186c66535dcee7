"""Sweeps over a TorchScript archive: numbers in code and pickles, its entries, and their names."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile_values import Mutant

Entries = dict[str, bytes]
_NUMBERS = ("0", "-1", "1", *(str(2**bits - less) for bits in (31, 63) for less in (1, 0)), "nan")


def torchscript_mutants(path: Path) -> Iterator[Mutant]:
    """Changed entries; the archive itself stays a valid zip file."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, data in entries.items():
        yield _mutant(path, f"{name} removed", lambda e, n=name: e.pop(n))
        yield _mutant(path, f"{name} empty", lambda e, n=name: e.update({n: b""}))
        yield _mutant(path, f"{name} half", lambda e, n=name: e.update({n: e[n][: len(e[n]) // 2]}))
        yield _mutant(path, f"{name} outside", lambda e, n=name: e.update({"../../x": e.pop(n)}))
        if name.endswith(".py"):
            yield from _code(path, name, data)
        elif name.endswith(".pkl"):
            for at in range(0, len(data), max(1, len(data) // 200)):
                for new in (0, 0x80, 0xFF, data[at] ^ 1):
                    yield _mutant(path, f"{name} byte {at}={new}", _byte(name, at, new))


def _code(path: Path, name: str, data: bytes) -> Iterator[Mutant]:
    """Each distinct number of the code replaced."""
    found = {match[0]: match for match in re.finditer(rb"(?<![\w.])\d+(?![\w.])", data)}
    for text, match in found.items():
        for new in _NUMBERS:
            changed = data[: match.start()] + new.encode() + data[match.end() :]
            yield _mutant(
                path, f"{name} {text.decode()}={new}", lambda e, c=changed: e.update({name: c})
            )


def _byte(name: str, at: int, new: int) -> Callable[[Entries], None]:
    def edit(entries: Entries) -> None:
        data = bytearray(entries[name])
        data[at] = new
        entries[name] = bytes(data)

    return edit


def _mutant(path: Path, name: str, edit: Callable[[Entries], object]) -> Mutant:
    def content() -> bytes:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        edit(entries)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for entry, data in entries.items():
                archive.writestr(entry, data)
        return buffer.getvalue()

    return Mutant(f"{path.name} {name}", path.name, content)
