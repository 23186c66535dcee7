"""A JSON array read row by row, in constant memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge.runtime.errors import DataError
from edge.runtime.platform.json_file import parse_json
from edge.runtime.rows.lines import MAX_LINE_BYTES

_CHUNK = 1 << 16
_SPACE = " \t\r\n"


def iter_array(handle: BinaryIO, path: str | Path) -> Iterator[tuple[int, object]]:
    """Line and value of each element of a JSON array.

    Raises:
        DataError: Not UTF-8, not a JSON array, or an element longer than MAX_LINE_BYTES.
    """
    return _ArrayReader(handle, path).elements()


class _ArrayReader:
    def __init__(self, handle: BinaryIO, path: str | Path) -> None:
        self._handle = handle
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._place = 0
        self._line = 1
        self._ended = False

    def elements(self) -> Iterator[tuple[int, object]]:
        self._take("[")
        if self._peek() == "]":
            self._place += 1
        else:
            while True:
                self._peek()
                yield self._line, self._element()
                if self._peek() != ",":
                    break
                self._place += 1
            self._take("]")
        if self._peek():
            raise self._error("text after the end of the array")

    def _take(self, wanted: str) -> None:
        found = self._peek()
        if found != wanted:
            raise self._error(f"expected {wanted!r}, found {repr(found) if found else 'the end'}")
        self._place += 1

    def _peek(self) -> str:
        """The next character that is no white space, or "" at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text) or not self._more(_CHUNK):
                return self._text[self._place : self._place + 1]

    def _more(self, size: int) -> bool:
        """Read on; whether there was more."""
        raw = b"" if self._ended else self._handle.read(size)
        self._ended = not raw
        try:
            text = self._decode(raw, self._ended)
        except UnicodeDecodeError:
            raise self._error("not UTF-8 after this line") from None
        self._text = self._text[self._place :] + text
        self._place = 0
        return not self._ended

    def _element(self) -> object:
        size = _CHUNK
        while True:
            try:
                _, end = self._scan(self._text, self._place)
                # A number may go on after the text that was read.
                if end < len(self._text) or self._ended:
                    if end - self._place > MAX_LINE_BYTES:
                        raise self._error(f"a row longer than {MAX_LINE_BYTES >> 20} MiB")
                    break
            except RecursionError:
                raise self._error("nested too deeply") from None
            except ValueError as error:
                if self._ended:
                    raise self._error(str(error).partition(":")[0]) from None
            if len(self._text) - self._place > MAX_LINE_BYTES:
                raise self._error(f"not JSON, or a row longer than {MAX_LINE_BYTES >> 20} MiB")
            self._more(size)
            size *= 2
        text = self._text[self._place : end]
        try:
            values = parse_json(text, unique_names=True)
        except ValueError as error:
            raise DataError(str(error), path=self._path, line=self._line) from None
        self._line += text.count("\n")
        self._place = end
        return values

    def _error(self, problem: str) -> DataError:
        return DataError(f"not a JSON array: {problem}", path=self._path, line=self._line)
