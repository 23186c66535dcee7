"""Stop strings: ending a row at the first one, and cutting the text before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.runtime.engines.base import TokenCallback
from edge.runtime.options import GenerationOptions
from edge.runtime.text.incremental import IncrementalDecoder

Decode = Callable[[Sequence[Sequence[int]]], list[str]]


class StopStringCriteria:
    """A token callback that ends a row once its decoded text contains a stop string.

    Args:
        stop_strings: The strings that end a row.
        decode: Token ids to text, for a batch.
        then: Another callback, called for each token.
    """

    def __init__(
        self, stop_strings: Sequence[str], decode: Decode, then: TokenCallback | None
    ) -> None:
        self._stop_strings = stop_strings
        self._decode = decode
        self._then = then
        self._rows: dict[int, _Row] = {}

    @classmethod
    def for_options(
        cls, options: GenerationOptions, decode: Decode, then: TokenCallback | None
    ) -> TokenCallback | None:
        """The callback for these options: stop strings and `then`, `then` alone, or None.

        Beam search has no callback; its text is only cut afterwards.
        """
        if not options.stop_strings or options.num_beams > 1 or options.num_return_sequences > 1:
            return then
        return cls(options.stop_strings, decode, then)

    def __call__(self, row: int, token: int) -> bool:
        """See `TokenCallback`."""
        if row not in self._rows:
            self._rows[row] = _Row(self._decode, self._stop_strings)
        found = self._rows[row].append(token)
        return (self._then is not None and self._then(row, token)) or found


class _Row:
    """The text of one row, of which only the end is kept that may be the start of a stop string."""

    def __init__(self, decode: Decode, stop_strings: Sequence[str]) -> None:
        self._decoder = IncrementalDecoder(lambda ids: decode([ids])[0])
        self._stop_strings = stop_strings
        self._kept = max(map(len, stop_strings)) - 1
        self._end = ""
        self._found = False

    def append(self, token: int) -> bool:
        """Add a token; returns whether the text contains a stop string."""
        text = self._end + self._decoder.append(token)
        self._found = self._found or any(stop in text for stop in self._stop_strings)
        self._end = text[max(0, len(text) - self._kept) :]
        return self._found


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text before its first stop string, and whether it contains one."""
    positions = [position for stop in stop_strings if (position := text.find(stop)) >= 0]
    return (text[: min(positions)], True) if positions else (text, False)
