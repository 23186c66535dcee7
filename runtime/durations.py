"""Durations with units: `90`, `90s`, `1.5m`, `2h`."""

from __future__ import annotations

import math
import re

from edge.runtime.errors import UsageError

_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOO_LONG = 10**18
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(ms|s|m|h)?\s*")


def parse_duration(value: str | float, name: str = "duration") -> float:
    """A duration in seconds, greater than 0.

    Args:
        value: A number of seconds, or a number with the unit `ms`, `s`, `m` or `h`.
        name: The option or field, for the error message.

    Raises:
        UsageError: The value is not a positive, finite duration.
    """
    seconds = math.nan
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match:
            seconds = float(match[1]) * _SECONDS[match[2] or ""]
    elif not isinstance(value, bool) and abs(value) < _TOO_LONG:
        seconds = float(value)
    if not (math.isfinite(seconds) and seconds > 0):
        is_huge = isinstance(value, int) and abs(value) >= _TOO_LONG  # too long to print
        shown = "a number above 10^18" if is_huge else f"{value!r:.80}"
        raise UsageError(f"{name}: {shown} is not a duration; use a number with s, m or h: 90s")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact form: `90s`, `5m`, `2h`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
