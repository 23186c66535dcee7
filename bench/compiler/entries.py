"""Shapes of the stored entries of a search, by which a damaged entry is told from a whole one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]
Shape = Callable[[Values], bool]


def is_source(entry: Values) -> bool:
    """Whether an entry is the first answer of `edge.bench.compiler.export_worker`."""
    return (
        isinstance(entry.get("plain_greedy"), bool)
        and isinstance(entry.get("generation"), dict)
        and isinstance(entry.get("prompt"), str)
    )


def reference_shape(rows: int) -> Shape:
    """The shape of the source model's answers to `rows` rows."""
    return lambda entry: _is_list(entry.get("answers"), rows, _is_text)


def is_export(entry: Values) -> bool:
    """Whether an entry is an exported artifact, or the reason why there is none."""
    if "size" not in entry:
        return _is_reason(entry.get("refused", entry.get("failed")))
    size = entry.get("shortlist_size")
    return (
        _is_count(entry["size"])
        and _is_number(entry.get("seconds"))
        and isinstance(entry.get("parity"), dict)
        and (size is None or _is_count(size))
    )


def timed_shape(count: int) -> Shape:
    """The shape of a measurement of `count` answers, or of the reason why there is none."""

    def is_timed(entry: Values) -> bool:
        if "failed" in entry:
            return _is_reason(entry["failed"])
        return (
            entry.keys() == {"ms", "answers", "new_tokens", "truncated", "load_ms", "peak_rss"}
            and _is_list(entry["ms"], count, _is_number)
            and _is_list(entry["answers"], count, _is_text)
            and _is_list(entry["new_tokens"], count, _is_count)
            and _is_count(entry["truncated"])
            and _is_number(entry["load_ms"])
            and _is_count(entry["peak_rss"])
        )

    return is_timed


def _is_list(value: Any, length: int, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(is_item, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_reason(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 63 and math.isfinite(value)
