"""Short, unambiguous names for the results of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edge.runtime.printing import printable_line


def result_labels(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A unique short name for each result, in order.

    Format and quantization where that is enough, else the part of the path that differs; then
    batch, concurrency and threads where they differ.

    Args:
        results: the `results` of a report's JSON document.
    """
    names = [f"{one['format']} {one['quantization']}" for one in results]
    paths = [one["artifact"] for one in results]
    by_path = dict(zip(paths, names, strict=True))
    if len(set(by_path.values())) < len(by_path):
        names = _differing_parts(paths)
    for field, before, after in (
        ("batch", "batch ", ""),
        ("concurrency", "", " at once"),
        ("threads", "", " threads"),
    ):
        if len({one.get(field) for one in results}) > 1:
            taken = Counter(names)
            values = [one.get(field) for one in results]
            names = [
                f"{name}, {before}{value}{after}" if value and taken[name] > 1 else name
                for name, value in zip(names, values, strict=True)
            ]
    return [printable_line(name) for name in names]


def _differing_parts(paths: Sequence[str]) -> list[str]:
    """Each path without the folders that all of them have in common."""
    parts = [path.rstrip("/").split("/") for path in paths]
    common = 0
    while all(len(own) > common + 1 for own in parts) and len({own[common] for own in parts}) == 1:
        common += 1
    return ["/".join(own[common:]) for own in parts]
