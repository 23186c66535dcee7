"""A file of lines that survives a crash of whoever writes it.

The lines go to `.NAME.partial` beside the destination, behind a first line that says what run they
belong to. The same run started again continues after the last whole line; at the end the lines
become the destination in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from edge.runtime.errors import OutputExistsError
from edge.runtime.platform.atomic import new_file, readable_os_errors
from edge.runtime.platform.lock import lock_file

_VERSION = 1
_SYNC_SECONDS = 1.0  # a crash of the process loses nothing, one of the machine this much
_MAX_HEADER = 1 << 20


class Journal:
    """Lines written so far for one destination; made by `open_journal`."""

    def __init__(self, destination: Path, descriptor: int) -> None:
        self._destination = destination
        self._path = journal_path(destination)
        self._descriptor = descriptor  # locked; written to without a buffer
        self._synced = time.monotonic()
        self._start = 0  # where the lines begin
        self.lines = 0

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Forget what is there and write the first line."""
        header = json.dumps({"edge_journal": _VERSION, "identity": identity}) + "\n"
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with readable_os_errors(self._destination):
            self._write(header.encode())
        self._start = len(header.encode())
        self.lines = 0

    def resume(self, identity: Mapping[str, Any]) -> str | None:
        """Count the whole lines; None if they belong to this run, else why they do not."""
        with self._path.open("rb") as reader:
            header = reader.readline(_MAX_HEADER)
            if not header.endswith(b"\n") and len(header) < _MAX_HEADER:
                self.begin(identity)  # it is new, or ended while the first line was written
                return None
            try:
                found = json.loads(header)
                known = found["edge_journal"] == _VERSION and isinstance(found["identity"], dict)
            except (ValueError, TypeError, KeyError):
                known = False
            if not known:
                return "is of another version, or no file of ours"
            self._start = reader.tell()
            self.lines = _whole_lines(reader)
        return difference(found["identity"], identity)

    def keep(self, lines: int) -> None:
        """Drop all but the first `lines`, and half a line at the end."""
        with self._path.open("rb") as reader:
            reader.seek(self._start)
            for _ in range(lines):
                reader.readline()
            end = reader.tell()
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        self.lines = lines

    def append(self, lines: Sequence[str]) -> None:
        """Add lines; they are the system's once this returns, so that a killed process keeps them.

        Raises:
            EdgeError: the disk is full.
        """
        with readable_os_errors(self._destination):
            self._write("".join(line + "\n" for line in lines).encode())
            self.lines += len(lines)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()

    def publish(self) -> None:
        """Make the lines the destination; a crash within leaves the old file or the new one."""
        with (
            self._path.open("rb") as reader,
            new_file(self._destination) as staging,
            staging.open("wb") as output,
        ):
            reader.seek(self._start)
            shutil.copyfileobj(reader, output)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def journal_path(destination: Path) -> Path:
    """Where the lines stay until the destination is complete."""
    return destination.with_name(f".{destination.name}.partial")


@contextlib.contextmanager
def open_journal(
    destination: Path, identity: Mapping[str, Any], *, force: bool = False
) -> Iterator[Journal]:
    """The journal of `destination`, with the lines that an earlier, unfinished run left in it.

    It is removed once the block ends without an error, or while it has no lines. `identity` says
    what run this is ("artifact", "input", "options"); `force` forgets another run's lines.

    Raises:
        OutputExistsError: another run left lines, and `force` is off.
        UsageError: another process is at work on the same destination.
    """
    path = journal_path(destination)
    with lock_file(path, destination) as descriptor:
        journal = Journal(destination, descriptor)
        other = journal.resume(identity)
        if other and not force:
            raise OutputExistsError(
                f"{destination}: {path.name} keeps {journal.lines:,} answers of an unfinished run,"
                f" which {other}; repeat that command to continue it, or add --force to begin anew"
            )
        if other or force:
            journal.begin(identity)
        try:
            yield journal
        except BaseException:
            if not journal.lines:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def _whole_lines(reader: BinaryIO) -> int:
    """Lines from here that end; a machine's crash may have left zeros, which end the trust."""
    count = 0
    for line in reader:
        if not line.endswith(b"\n") or b"\0" in line:
            break
        count += 1
    return count


_OTHER = {
    "artifact": "is of another artifact",
    "input": "is of another input, or that file has changed",
}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """What tells two identities apart, in words; None where answers may be continued."""
    for name, words in _OTHER.items():
        if found.get(name) != wanted.get(name):
            return words
    before, now = dict(found.get("options", {})), dict(wanted.get("options", {}))
    if before.get("on_long") == "error":
        # Rows answered under "error" were short enough, so every other way treats them alike.
        del before["on_long"]
        now.pop("on_long", None)
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return f"had other options ({', '.join(differing)})" if differing else None
