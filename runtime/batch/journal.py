"""Crash-safe journal of output lines.

Lines are appended to `.NAME.partial` beside the destination. Its first line holds the run's
fingerprint, so that the same run continues after the last complete line. At the end the lines
replace the destination atomically.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import parse_json
from edge.runtime.platform.lock import lock_file
from edge.runtime.platform.os_errors import readable_os_errors

_VERSION = 1
_SYNC_INTERVAL_S = 1.0  # the most a power failure can lose; a killed process loses nothing
_MAX_HEADER_BYTES = 1 << 20
_MAX_NAME_BYTES, _KEPT_CHARACTERS = 240, 50  # file systems allow 255 bytes


class Journal:
    """Lines written so far for one destination. Create it with `open_journal`.

    Attributes:
        lines: Number of complete lines.
    """

    def __init__(self, destination: Path, descriptor: int) -> None:
        """`descriptor` is the journal's file, locked by the caller and open for writing."""
        self._destination = destination
        self._path = journal_path(destination)
        self._descriptor = descriptor
        self._synced_at = time.monotonic()
        self._header_bytes = 0
        self.lines = 0

    def reset(self, fingerprint: Mapping[str, Any]) -> None:
        """Delete all lines and write a new header.

        Raises:
            EdgeError: The disk is full.
        """
        header = json.dumps({"edge_journal": _VERSION, "identity": fingerprint}) + "\n"
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with readable_os_errors(self._destination):
            self._write(header.encode())
        self._header_bytes = len(header.encode())
        self.lines = 0

    def resume(self, fingerprint: Mapping[str, Any]) -> str | None:
        """Count the complete lines, and compare the header with `fingerprint`.

        Returns:
            None if the lines belong to this run, otherwise what differs, in words.
        """
        with self._path.open("rb") as reader:
            header = reader.readline(_MAX_HEADER_BYTES)
            if not header.endswith(b"\n") and len(header) < _MAX_HEADER_BYTES:
                self.reset(fingerprint)  # a new file, or a crash while the header was written
                return None
            try:
                found = parse_json(header)
                known = found["edge_journal"] == _VERSION and isinstance(found["identity"], dict)
            except (ValueError, TypeError, KeyError):
                known = False
            if not known:
                return "has an unknown format or version"
            self._header_bytes = reader.tell()
            self.lines = _count_complete_lines(reader)
        return describe_difference(found["identity"], fingerprint)

    def truncate(self, lines: int) -> None:
        """Keep the first `lines`; drop the others and an incomplete line at the end."""
        with self._path.open("rb") as reader:
            reader.seek(self._header_bytes)
            for _ in range(lines):
                reader.readline()
            end = reader.tell()
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        self.lines = lines

    def append(self, lines: Sequence[str]) -> None:
        """Append lines. Once this returns they survive the end of the process.

        Raises:
            EdgeError: The disk is full.
        """
        with readable_os_errors(self._destination):
            self._write("".join(line + "\n" for line in lines).encode())
            self.lines += len(lines)
            if time.monotonic() - self._synced_at > _SYNC_INTERVAL_S:
                os.fsync(self._descriptor)
                self._synced_at = time.monotonic()

    def publish(self) -> None:
        """Replace the destination by the lines, atomically.

        Raises:
            EdgeError: The disk is full.
        """
        with (
            self._path.open("rb") as reader,
            new_file(self._destination) as staging,
            staging.open("wb") as output,
        ):
            reader.seek(self._header_bytes)
            shutil.copyfileobj(reader, output)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def journal_path(destination: Path) -> Path:
    """The journal's path: `.NAME.partial` beside the destination; long names are shortened."""
    name = destination.name
    if len(name.encode()) > _MAX_NAME_BYTES:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[:_KEPT_CHARACTERS]}-{digest}"
    return destination.with_name(f".{name}.partial")


@contextlib.contextmanager
def open_journal(
    destination: Path, fingerprint: Mapping[str, Any], *, force: bool = False
) -> Iterator[Journal]:
    """Open the journal of `destination`, with the lines of an unfinished run if there was one.

    The file is deleted when the block ends without an error, or with an error before any line.

    Args:
        destination: The output file.
        fingerprint: What the run depends on: "artifact", "input", "options".
        force: Discard the lines of a different run.

    Raises:
        OutputExistsError: A different run left lines, and `force` is off.
        UsageError: Another process writes the same destination.
    """
    path = journal_path(destination)
    with lock_file(path, destination) as descriptor:
        journal = Journal(destination, descriptor)
        difference = journal.resume(fingerprint)
        if difference and not force:
            raise OutputExistsError(
                f"{destination}: {path.name} holds {journal.lines:,} answers of an unfinished run,"
                f" which {difference}. Repeat that command to continue it, or use --force to"
                " discard it and start over"
            )
        if difference or force:
            journal.reset(fingerprint)
        try:
            yield journal
        except BaseException:
            if not journal.lines:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def _count_complete_lines(reader: BinaryIO) -> int:
    """Lines up to the first incomplete one; a power failure may leave zeros instead of text."""
    count = 0
    for line in reader:
        if not line.endswith(b"\n") or b"\0" in line:
            break
        count += 1
    return count


_DIFFERENCES = {
    "artifact": "used another artifact",
    "input": "used another input, or that file has changed",
}


def describe_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """How two fingerprints differ, in words; None if answers may be continued."""
    for name, words in _DIFFERENCES.items():
        if found.get(name) != wanted.get(name):
            return words
    before, now = dict(found.get("options", {})), dict(wanted.get("options", {}))
    if before.get("on_long") == "error":
        # Rows answered under "error" fit the limit, so other settings treat them the same way.
        del before["on_long"]
        now.pop("on_long", None)
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return f"used other options ({', '.join(differing)})" if differing else None
