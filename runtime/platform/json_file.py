"""JSON: one parser for files and lines from untrusted places, and one writer of valid JSON."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Far deeper than any file of ours; well below what exhausts the stack of Python's copy and json.
MAX_DEPTH = 100
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: str | Path, max_bytes: int) -> Any:
    """Parse a JSON file, unless it is too large.

    Args:
        path: The file, in UTF-8.
        max_bytes: The largest size that is read.

    Raises:
        OSError: The file is missing or not readable.
        ValueError: The file is larger than `max_bytes`, or not JSON. The message says which and
            does not name the file.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        content = file.read(max_bytes + 1)  # not by its size: /dev/zero has none
        if len(content) > max_bytes:
            size = max(len(content), Path(path).stat().st_size)
            raise ValueError(f"larger than the limit: {size:,} bytes, at most {max_bytes:,}")
    values = parse_json(content)
    if _SURROGATE.search(content.decode()) and not is_unicode(values):
        raise ValueError("not JSON: a lone surrogate is not valid Unicode")
    return values


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is empty, and not waited for."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def parse_json(text: str | bytes, *, unique_names: bool = False) -> Any:
    """Parse JSON from an untrusted place.

    Args:
        text: The JSON; bytes are in UTF-8.
        unique_names: Refuse an object with two values of the same name, of which Python's parser
            keeps the last.

    Raises:
        ValueError: Not JSON, nested more than `MAX_DEPTH` levels deep, or with a number of
            thousands of digits. The message says which.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # Windows editors put a byte order mark first
        values = json.loads(text, object_pairs_hook=_unique if unique_names else None)
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise ValueError(f"not JSON: {error.msg} ({place}column {error.colno})") from None
    except RepeatedNameError:
        raise
    except ValueError:  # of int(), which has its own limit
        raise ValueError("not JSON: a number has thousands of digits") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and not _is_shallow(values):
        raise ValueError(f"not JSON: nested too deeply (more than {MAX_DEPTH} levels)")
    return values


def dump_json(
    values: Any,
    *,
    indent: int | None = None,
    ensure_ascii: bool = False,
    default: Callable[[object], object] | None = None,
) -> str:
    """JSON text of values; NaN and infinite numbers, which JSON lacks, become null.

    Args:
        values: The values.
        indent: As in `json.dumps`.
        ensure_ascii: As in `json.dumps`.
        default: As in `json.dumps`: gives a value with a JSON type for one without.

    Raises:
        TypeError: A value has no JSON type, and there is no `default`.
    """
    options: Any = {"indent": indent, "ensure_ascii": ensure_ascii, "default": default}
    try:
        return json.dumps(values, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(values), **options)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


class RepeatedNameError(ValueError):
    """A JSON object has two values of the same name."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise RepeatedNameError(f"two values are named {repeated!r:.80}")
    return values


def _is_shallow(values: Any) -> bool:
    """Whether lists and objects are nested at most `MAX_DEPTH` levels deep."""
    level = [values] if isinstance(values, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def is_unicode(values: Any) -> bool:
    """Whether all texts in JSON values are valid Unicode, without half a surrogate pair."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
