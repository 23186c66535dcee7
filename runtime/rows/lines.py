"""Lines of a file, plain or gzip, within limits of memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from edge.runtime.errors import DataError

MAX_LINE_BYTES = 8 << 20  # longer lines are rejected before they fill the memory
# What a .gz file may expand to: text shrinks to a tenth, a bomb to a thousandth.
_MAX_EXPANSION, _ALWAYS_ALLOWED = 100, 256 << 20


@contextmanager
def open_data(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for reading; a name that ends in .gz is decompressed.

    Raises:
        DataError: The file is missing, a folder, not readable, damaged, or in another encoding than
            UTF-8.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError("is a folder; give a file", path=path)
        handle = path.open("rb")
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from error
    with handle:
        if not path.name.lower().endswith(".gz"):
            if _start(handle, path)[:2] == b"\x1f\x8b":
                raise DataError("is a gzip file; its name must end in .gz", path=path)
            _refuse_other_encodings(handle, path)
            yield handle
            return
        limit = max(_ALWAYS_ALLOWED, _MAX_EXPANSION * path.stat().st_size)
        with gzip.GzipFile(fileobj=handle) as unpacked:
            limited = io.BufferedReader(cast(Any, _Limited(unpacked, limit, path)))
            _refuse_other_encodings(limited, path)
            yield cast(BinaryIO, limited)


def _start(handle: io.BufferedReader[Any], path: Path) -> bytes:
    """The first bytes of a file, which are read again later."""
    try:
        return handle.peek(4)[:4]
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from error


def _refuse_other_encodings(handle: io.BufferedReader[Any], path: Path) -> None:
    """Check that a file does not begin as UTF-16 or UTF-32, which some spreadsheets write.

    Raises:
        DataError: It does.
    """
    start = _start(handle, path)
    nulls = [byte == 0 for byte in start]
    encoding = None
    if start in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        encoding = "UTF-32"
    elif start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "UTF-16"
    elif nulls == [False, True, False, True]:  # Latin letters without a byte order mark
        encoding = "UTF-16LE"
    elif nulls == [True, False, True, False]:
        encoding = "UTF-16BE"
    if encoding is not None:
        raise DataError(
            f"is {encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8 IN > OUT",
            path=path,
        )


class _Limited(io.RawIOBase):
    """The bytes of a gzip stream, up to a limit; faults are a `DataError`."""

    def __init__(self, source: gzip.GzipFile, limit: int, path: Path) -> None:
        self._source = source
        self._left = limit
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            data = self._source.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"not a whole gzip file ({error})", path=self._path) from None
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"expands to more than {_MAX_EXPANSION} times its size; decompress it first",
                path=self._path,
            )
        buffer[: len(data)] = data
        return len(data)


def raw_lines(
    handle: BinaryIO, path: str | Path, *, blank: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Line number, from 1, and bytes of each line; blank ones only if `blank`.

    Raises:
        DataError: A line is longer than MAX_LINE_BYTES, or can't be read.
    """
    number = 0
    while raw := _read_line(handle, path, number + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"the line is longer than {MAX_LINE_BYTES >> 20} MiB", path=path, line=number
            )
        if blank or raw.strip():
            yield number, raw


def _read_line(handle: BinaryIO, path: str | Path, number: int) -> bytes:
    try:
        return handle.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path, line=number) from error


def decode(raw: bytes, path: str | Path, line: int) -> str:
    """The text of a line.

    Raises:
        DataError: Not UTF-8.
    """
    try:
        # utf-8-sig: some editors write a byte order mark.
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte {error.start} of the line)", path=path, line=line
        ) from None


def iter_lines(path: str | Path) -> Iterator[str]:
    """The lines of a text file without their line ends, blank ones included.

    Raises:
        DataError: The file is missing, or a line is not UTF-8 or too long.
    """
    with open_data(path) as handle:
        for number, raw in raw_lines(handle, path, blank=True):
            yield decode(raw, path, number).rstrip("\r\n")
