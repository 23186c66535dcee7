"""Stop strings: a row ends as soon as its text holds one, and the text is cut before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from edge.runtime.engines.base import TokenCallback
from edge.runtime.options import GenerationOptions

Decode = Callable[[Sequence[Sequence[int]]], list[str]]


class StopWatcher:
    """A token callback that ends a row once its decoded text holds a stop string."""

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
        """The callback that the options need: a watcher, `then` alone, or none.

        Beams have no callback; their text is only cut afterwards.
        """
        if not options.stop_strings or options.num_beams > 1 or options.num_return_sequences > 1:
            return then
        return cls(options.stop_strings, decode, then)

    def __call__(self, row: int, token: int) -> bool:
        self._ids[row].append(token)
        text = self._decode([self._ids[row]])[0]
        found = any(stop in text for stop in self._stop_strings)
        return (self._then is not None and self._then(row, token)) or found


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text before its first stop string, and whether there was one."""
    places = [place for stop in stop_strings if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
