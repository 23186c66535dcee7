"""Malicious JSON: every value of a file replaced in turn, and every key removed or doubled."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_values import FLOATS, INTEGERS, Mutant

_RAW = "@raw@"
# Text that Python's json module would not write.
_DEEP = ("[" * 5000 + "]" * 5000, '{"a":' * 150 + "1" + "}" * 150)
_RAW_VALUES = ("9" * 5000, "1e999", '"\\ud800"', *_DEEP)
_VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", "a\0b", "../x", "x" * 300, "x" * 200_000, "e" * 1000, "[bold]",
    [], {}, [[]], {"": 1}, [0] * 10_000, ["x"], {"type": "x"},
)  # fmt: skip
Path_ = tuple[Any, ...]


def json_mutants(path: Path, *, skip: tuple[str, ...] = ()) -> Iterator[Mutant]:
    """Sweep over all values but those below a key of `skip`; lists by their first two entries."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for place in _places(values, skip):
        where = f"{path.name} {'.'.join(map(str, place))}"
        for index, value in enumerate((*INTEGERS, *FLOATS, *_VALUES)):
            yield Mutant(f"{where} #{index}", path.name, _Set(path, place, value))
        for index, raw in enumerate(_RAW_VALUES):
            yield Mutant(f"{where} raw #{index}", path.name, _Set(path, place, _RAW, raw))
        if place:
            yield Mutant(f"{where} removed", path.name, _Set(path, place, None, remove=True))


def _places(values: Any, skip: tuple[str, ...], place: Path_ = ()) -> Iterator[Path_]:
    yield place
    if place and place[-1] in skip:
        return
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _places(value, skip, (*place, key))
    elif isinstance(values, list):
        for key, value in enumerate(values[:2]):
            yield from _places(value, skip, (*place, key))


class _Set:
    """The file with one value replaced or removed."""

    def __init__(
        self, path: Path, place: Path_, value: Any, raw: str = "", *, remove: bool = False
    ) -> None:
        self.path, self.place, self.value, self.raw, self.remove = path, place, value, raw, remove

    def __call__(self) -> bytes:
        root = [json.loads(self.path.read_text(encoding="utf-8"))]
        inner: Any = root
        *above, last = (0, *self.place)
        for key in above:
            inner = inner[key]
        if self.remove:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(self.value)
        text = json.dumps(root[0])
        return text.replace(f'"{_RAW}"', self.raw).encode() if self.raw else text.encode()
