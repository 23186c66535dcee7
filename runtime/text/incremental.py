"""The text of an answer while its tokens arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_WINDOW = 32  # ids decoded with each token before the first of them are dropped
_CONTEXT = (
    8  # ids that are kept then: a first token decodes without its space, half a character not
)


class IncrementalDecoder:
    """Decodes a growing row of ids; each token costs the same, however long the row is.

    Args:
        decode: Ids of one row to its text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._returned = 0  # characters of the window's text

    def append(self, token: int) -> str:
        """Add a token.

        Returns:
            The text that follows what was returned before, up to a character that is incomplete.
        """
        self._window.append(token)
        text = self._decode(self._window)
        complete = len(text.rstrip(_REPLACEMENT))
        new = text[self._returned : complete]
        self._returned = max(self._returned, complete)
        if len(self._window) >= _WINDOW and self._returned == len(text):
            self._shorten(text)
        return new

    def _shorten(self, text: str) -> None:
        """Keep the last ids of the window, if these give the end of its text alone too."""
        kept = self._window[-_CONTEXT:]
        end = self._decode(kept)
        if end and text.endswith(end):
            self._window, self._returned = kept, len(end)
