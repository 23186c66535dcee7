"""Splitting long texts at sentence ends, else between words, else between characters."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence

# White space after ., !, ? or an ellipsis (and closing quotes or brackets) or around a line break,
# and the position after a Chinese or Japanese full stop.
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’)\]»])\s+|(?<=[。！？])|\s*\n\s*")
_WORD_END = re.compile(r"\s+")

# (end of a part, start of the next part)
_Ends = Sequence[tuple[int, int]]


def split(text: str, fits: Callable[[str], bool], max_parts: int) -> list[tuple[str, str]] | None:
    """Split a text into the longest parts that fit.

    Parts end at sentence ends. If not even one sentence fits, they end between words, and if no
    word fits, between characters.

    Args:
        text: The text.
        fits: Whether a part is short enough.
        max_parts: Largest number of parts.

    Returns:
        Each part with the white space that follows it; None if that takes more than `max_parts`
        parts, or not even one character fits.
    """
    sentences, words = _ends(text, _SENTENCE_END), _ends(text, _WORD_END)
    parts: list[tuple[str, str]] = []
    start = 0
    while start < len(text):
        if len(parts) == max_parts:
            return None
        found = _longest(text, start, sentences, fits) or _longest(text, start, words, fits)
        if found is None:
            anywhere = [(end, end) for end in range(start + 1, _first(words, start, text))]
            found = _longest(text, start, anywhere, fits)
        if found is None:
            return None
        end, following = found
        parts.append((text[start:end], text[end:following]))
        start = following
    return parts


def _ends(text: str, pattern: re.Pattern[str]) -> _Ends:
    found = [(m.start(), m.end()) for m in pattern.finditer(text) if m.start() > 0]
    return [*found, (len(text), len(text))]


def _first(words: _Ends, start: int, text: str) -> int:
    index = bisect.bisect_right(words, (start, len(text)))
    return words[index][0] if index < len(words) else len(text)


def _longest(
    text: str, start: int, ends: _Ends, fits: Callable[[str], bool]
) -> tuple[int, int] | None:
    """The last of the ends up to which the text from `start` fits, or None.

    Gallops from `start`, so that few texts are tried, none much longer than what fits.
    """
    first = bisect.bisect_right(ends, (start, len(text)))
    good, step = first - 1, 1
    while good + step < len(ends) and fits(text[start : ends[good + step][0]]):
        good, step = good + step, step * 2
    while step > 1:  # binary search: the last end that fits is less than `step` after `good`
        step //= 2
        if good + step < len(ends) and fits(text[start : ends[good + step][0]]):
            good += step
    return ends[good] if good >= first else None
