"""Shards of a dataset, and the output folder that records which of them are finished."""

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

from edge.runtime.batch.journal import describe_difference
from edge.runtime.errors import DataError, OutputExistsError, UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import read_json
from edge.runtime.platform.lock import lock_file
from edge.runtime.platform.os_errors import readable_os_errors
from edge.runtime.rows.kinds import is_hub, is_saved

SUFFIXES = (".jsonl", ".parquet")
_MAX_STATE_BYTES = 16 << 20
# Dataset readers (Spark, Arrow, this one) skip names that start with "_" or ".".
STATE_NAME = "_edge"
FAILED_NAME = "_failed"


@dataclass(frozen=True)
class Shard:
    """One input file. `name` is its path relative to the dataset's folder, with "/"."""

    name: str
    source: Path


@dataclass(frozen=True)
class ShardFinished:
    """Record of a finished shard.

    Attributes:
        name: The shard's name.
        rows: Rows of the source, including those without an answer.
        failed: Rows without an answer.
        size: Bytes of the source.
        mtime_ns: Modification time of the source.
    """

    name: str
    rows: int
    failed: int
    size: int
    mtime_ns: int


def is_dataset(path: Path) -> bool:
    """Whether `--input` means many files: a folder, or a glob pattern such as data/*.jsonl."""
    if is_saved(path) or is_hub(path):
        return False
    return path.is_dir() or (glob.has_magic(str(path)) and not path.exists())


def find_shards(path: Path) -> list[Shard]:
    """The .jsonl and .parquet files of a folder or glob pattern, sorted by name.

    Raises:
        DataError: There are none, or the pattern matches a file of another type.
    """
    if path.is_dir():
        base = path
        found = [p for p in path.rglob("*") if p.suffix in SUFFIXES and not _is_hidden(p, path)]
    else:
        base = _fixed_part(path)
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        others = [p for p in found if p.is_file() and p.suffix not in SUFFIXES]
        if others:
            raise DataError(f"the file must be one of {', '.join(SUFFIXES)}", path=min(others))
    shards = [Shard(p.relative_to(base).as_posix(), p.resolve()) for p in found if p.is_file()]
    if not shards:
        raise DataError(f"no {' or '.join(SUFFIXES)} files found", path=path)
    return sorted(shards, key=lambda shard: shard.name)


def _is_hidden(path: Path, base: Path) -> bool:
    return any(part[0] in "._" for part in path.relative_to(base).parts)


def _fixed_part(pattern: Path) -> Path:
    """The folder before the first wildcard of a pattern."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


@dataclass(frozen=True)
class OutputFolder:
    """Output of a dataset: one file of answers per shard, under the shard's name.

    `_failed/NAME.jsonl` holds the rows without an answer, each with its "error". `_edge/` holds
    the records of finished shards. A record is written after the shard's files, so a shard that
    was interrupted is answered again.
    """

    folder: Path

    def answers_path(self, name: str) -> Path:
        """File of a shard's answers."""
        return self.folder / name

    def failures_path(self, name: str) -> Path:
        """File of a shard's rows without an answer."""
        path = self.folder / FAILED_NAME / name
        return path if path.suffix == ".jsonl" else path.with_name(path.name + ".jsonl")

    def record_path(self, name: str) -> Path:
        """File of a finished shard's record."""
        return self.folder / STATE_NAME / "done" / f"{name}.json"

    def check(self, shards: Sequence[Shard], inputs: Path) -> None:
        """Check that no input lies in the output, and that no two shards share an output file.

        Raises:
            UsageError: They do.
        """
        target = self.folder.resolve()
        inside = [shard for shard in shards if shard.source.is_relative_to(target)]
        if inside:
            raise UsageError(f"--output {self.folder} contains the input {inside[0].source}")
        if inputs.is_dir() and target.is_relative_to(inputs.resolve()):
            raise UsageError(
                f"--output {self.folder} is inside --input {inputs}, so the next run would read"
                " it as input. Choose a folder outside"
            )
        owners: dict[Path, str] = {}
        for shard in shards:
            path = self.failures_path(shard.name)
            if path in owners:
                raise UsageError(
                    f"{owners[path]} and {shard.name} would write their failed rows to the same"
                    f" file, {path}. Rename one of them"
                )
            owners[path] = shard.name

    @contextlib.contextmanager
    def locked(self, fingerprint: Mapping[str, Any], *, force: bool = False) -> Iterator[None]:
        """Hold the folder for one run.

        Args:
            fingerprint: What the run depends on, except the rows.
            force: Delete another run's answers.

        Raises:
            OutputExistsError: The folder holds other files or another run's answers, and `force`
                is off.
            UsageError: Another process writes into it.
        """
        state = self.folder / STATE_NAME
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExistsError(
                f"{self.folder} is a file. --output must name a folder, because --input does"
            )
        has_run = (state / "run.json").is_file()
        foreign = self.folder.is_dir() and not state.is_dir() and any(self.folder.iterdir())
        if foreign and not force:
            raise OutputExistsError(
                f"{self.folder} contains other files. Choose another --output, or use --force to"
                " write into it"
            )
        with lock_file(state / "lock", self.folder):
            difference = None
            if has_run:
                difference = describe_difference(_read_json(state / "run.json") or {}, fingerprint)
            if difference and not force:
                raise OutputExistsError(
                    f"{self.folder} holds answers of a run that {difference}. Choose another"
                    " --output, or use --force to replace them"
                )
            if force:
                self._delete_finished()
            self._delete_partial_files()
            _write_json(state / "run.json", fingerprint)
            try:
                yield
            finally:
                self._delete_partial_files()

    def load_record(self, shard: Shard) -> ShardFinished | None:
        """The shard's record; None if its source has changed or its answers are missing."""
        values = _read_json(self.record_path(shard.name))
        try:
            record = ShardFinished(**(values or {}))
        except TypeError:
            return None
        stat = shard.source.stat()
        unchanged = (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        return record if unchanged and self.answers_path(shard.name).is_file() else None

    def save_record(self, record: ShardFinished) -> None:
        """Mark a shard as finished. Its answers and failures must be in place."""
        _write_json(self.record_path(record.name), asdict(record))

    def _delete_finished(self) -> None:
        records = self.folder / STATE_NAME / "done"
        for path in records.rglob("*.json"):
            name = path.relative_to(records).as_posix().removesuffix(".json")
            self.answers_path(name).unlink(missing_ok=True)
            self.failures_path(name).unlink(missing_ok=True)
        shutil.rmtree(records, ignore_errors=True)

    def _delete_partial_files(self) -> None:
        """Files that killed workers left behind."""
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
