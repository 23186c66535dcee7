"""Stop strings: ending a row at the first one, and cutting the text before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from edge.runtime.engines.base import TokenCallback
from edge.runtime.options import GenerationOptions

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
        self._ids: dict[int, list[int]] = defaultdict(list)

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
        self._ids[row].append(token)
        text = self._decode([self._ids[row]])[0]
        found = any(stop in text for stop in self._stop_strings)
        return (self._then is not None and self._then(row, token)) or found


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text before its first stop string, and whether it contains one."""
    positions = [position for stop in stop_strings if (position := text.find(stop)) >= 0]
    return (text[: min(positions)], True) if positions else (text, False)
