"""The files of a large data set: which there are, where their answers go, which are finished."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.runtime.batch.journal import difference
from edge.runtime.errors import DataError, OutputExistsError, UsageError
from edge.runtime.platform.atomic import new_file, readable_os_errors
from edge.runtime.platform.json_file import read_json
from edge.runtime.platform.lock import lock_file

SUFFIXES = (".jsonl", ".parquet")
_MAX_STATE_BYTES = 16 << 20
# Readers of data folders (Spark, Arrow, this one) pass over names that begin with "_" or ".".
STATE_NAME = "_edge"
FAILED_NAME = "_failed"


@dataclass(frozen=True)
class Shard:
    """One input file; `name` is its path below the folder that was named, with "/"."""

    name: str
    source: Path


@dataclass(frozen=True)
class Done:
    """What is known of a finished shard; `size` and `mtime_ns` are those of its source."""

    name: str
    rows: int
    failed: int
    size: int
    mtime_ns: int


def is_data_set(path: Path) -> bool:
    """Whether `--input` means many files: a folder, or a pattern such as data/*.jsonl."""
    return path.is_dir() or (glob.has_magic(str(path)) and not path.exists())


def find_shards(path: Path) -> list[Shard]:
    """The .jsonl and .parquet files below a folder, or those that a pattern names, by name.

    Raises:
        DataError: there are none, or the pattern names a file of another kind.
    """
    if path.is_dir():
        base = path
        found = [p for p in path.rglob("*") if p.suffix in SUFFIXES and not _is_hidden(p, path)]
    else:
        base = _fixed_part(path)
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        strange = [p for p in found if p.is_file() and p.suffix not in SUFFIXES]
        if strange:
            raise DataError(f"not one of {', '.join(SUFFIXES)}", path=min(strange))
    shards = [Shard(p.relative_to(base).as_posix(), p.resolve()) for p in found if p.is_file()]
    if not shards:
        raise DataError(f"no {' or '.join(SUFFIXES)} files there", path=path)
    return sorted(shards, key=lambda shard: shard.name)


def _is_hidden(path: Path, base: Path) -> bool:
    return any(part[0] in "._" for part in path.relative_to(base).parts)


def _fixed_part(pattern: Path) -> Path:
    """The folder before the first part of a pattern that holds a wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


@dataclass(frozen=True)
class OutputFolder:
    """Where the answers go: one file per shard, of its name, and what failed apart from them.

    `_failed/NAME.jsonl` holds the rows without an answer, each with its "error"; `_edge/` what is
    finished. A shard's record is written last, so that a crash within it means: once more.
    """

    folder: Path

    def answers(self, name: str) -> Path:
        return self.folder / name

    def failures(self, name: str) -> Path:
        path = self.folder / FAILED_NAME / name
        return path if path.suffix == ".jsonl" else path.with_name(path.name + ".jsonl")

    def record(self, name: str) -> Path:
        return self.folder / STATE_NAME / "done" / f"{name}.json"

    def check(self, shards: Sequence[Shard], inputs: Path) -> None:
        """Refuse what would read its own output, or write two shards to one place.

        Raises:
            UsageError: the folder holds an input, or is within the folder `inputs`.
        """
        target = self.folder.resolve()
        held = [shard for shard in shards if shard.source.is_relative_to(target)]
        if held:
            raise UsageError(f"--output {self.folder} holds the input {held[0].source}")
        if inputs.is_dir() and target.is_relative_to(inputs.resolve()):
            raise UsageError(
                f"--output {self.folder} is within --input {inputs}, where the next run would"
                " read it; give a place beside it"
            )
        places: dict[Path, str] = {}
        for shard in shards:
            place = self.failures(shard.name)
            if place in places:
                raise UsageError(f"{places[place]} and {shard.name} would fail into one file")
            places[place] = shard.name

    @contextlib.contextmanager
    def opened(self, identity: Mapping[str, Any], *, force: bool = False) -> Iterator[None]:
        """Hold the folder for this run alone.

        Raises:
            OutputExistsError: it holds something else, or another run's answers; with `force`
                those answers are removed first.
            UsageError: another process is at work in it.
        """
        state = self.folder / STATE_NAME
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExistsError(
                f"{self.folder} is a file; --output must name a folder, as --input does"
            )
        ours = (state / "run.json").is_file()
        strange = self.folder.is_dir() and not state.is_dir() and any(self.folder.iterdir())
        if strange and not force:
            raise OutputExistsError(
                f"{self.folder} holds something else; give another --output,"
                " or --force to write into it"
            )
        with lock_file(state / "lock", self.folder):
            other = difference(_read_json(state / "run.json") or {}, identity) if ours else None
            if other and not force:
                raise OutputExistsError(
                    f"{self.folder} holds answers of a run which {other}; give another --output,"
                    " or --force to replace them"
                )
            if force:
                self._forget()
            self._sweep()
            _write_json(state / "run.json", identity)
            try:
                yield
            finally:
                self._sweep()

    def finished(self, shard: Shard) -> Done | None:
        """The record of a shard, if its source is what it was and its answers are there."""
        values = _read_json(self.record(shard.name))
        try:
            done = Done(**(values or {}))
        except TypeError:
            return None
        stat = shard.source.stat()
        same = (done.size, done.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        return done if same and self.answers(shard.name).is_file() else None

    def finish(self, done: Done) -> None:
        """Record a shard whose answers and failures are in place."""
        _write_json(self.record(done.name), asdict(done))

    def _forget(self) -> None:
        for path in (self.folder / STATE_NAME / "done").rglob("*.json"):
            name = path.relative_to(self.folder / STATE_NAME / "done").as_posix()[: -len(".json")]
            self.answers(name).unlink(missing_ok=True)
            self.failures(name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / STATE_NAME / "done", ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed workers left half written."""
        for path in self.folder.rglob(".*.partial"):
            path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = read_json(path, _MAX_STATE_BYTES)
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with readable_os_errors(path), new_file(path) as staging:
        staging.write_text(json.dumps(values, indent=1) + os.linesep)
