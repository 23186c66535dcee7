"""Kinds of data, by the suffix, and the splits of a folder or a data set.

DATA is a file, a folder with one file for each split, a data set that `datasets` saved with
`save_to_disk`, or `hub:OWNER/NAME[:CONFIG][#SPLIT]`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from edge.runtime.artifact import sha256_of
from edge.runtime.errors import DataError
from edge.runtime.hub.data_sets import data_set_access
from edge.runtime.registry import missing_extra

SPLITS = ("train", "dev", "test")
# Names of each split, on the hub tried in this order.
_SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation", "val"),
    "test": ("test",),
}
_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
KNOWN_KINDS = (
    "JSON lines (.jsonl, .ndjson), JSON (.json), CSV, TSV, each also as .gz, Parquet, a folder of"
    " datasets' save_to_disk, hub:OWNER/NAME"
)
_HUB = "hub:"
_SAVED = "state.json"  # written by save_to_disk
_ONLY_SHARD = re.compile(r"-0+-of-0*1$")  # train-00000-of-00001.parquet, as files of the hub


@dataclass(frozen=True)
class HubDataset:
    """The parts of `hub:OWNER/NAME[:CONFIG][#SPLIT]`."""

    name: str
    config: str | None
    split: str | None

    @classmethod
    def parse(cls, data: str | Path) -> HubDataset:
        """The parts of the text.

        Raises:
            DataError: It has no name.
        """
        rest, _, split = str(data).removeprefix(_HUB).partition("#")
        name, _, config = rest.partition(":")
        if not name:
            raise DataError("give the data set as hub:OWNER/NAME[:CONFIG][#SPLIT]", path=data)
        return cls(name, config or None, split or None)


def is_hub(data: str | Path) -> bool:
    """Whether DATA names a data set of the Hugging Face hub."""
    return str(data).startswith(_HUB) and not Path(data).exists()


def is_saved(data: str | Path) -> bool:
    """Whether DATA is a folder with one data set of `save_to_disk`."""
    return (Path(data) / _SAVED).is_file()


def kind_of(data: str | Path) -> str | None:
    """The kind: jsonl, json, csv, tsv, parquet, saved or hub; None for another suffix."""
    if is_hub(data):
        return "hub"
    if is_saved(data):
        return "saved"
    name = PurePath(data).name.lower().removesuffix(".gz")
    return _KINDS.get(PurePath(name).suffix)


def holds_splits(data: str | Path) -> bool:
    """Whether DATA is a folder of files, or a data set with splits."""
    if is_hub(data):
        return HubDataset.parse(data).split is None
    return Path(data).is_dir() and not is_saved(data)


def split_file(data: str | Path, split: str) -> Path | None:
    """The file of `split` ("train", "dev" or "test") in DATA, or None if it has none.

    Raises:
        DataError: Several files are this split, or the hub does not have the data set.
    """
    if is_hub(data):
        names = _hub_splits(HubDataset.parse(data))
        found = next((name for name in _SPLIT_NAMES[split] if name in names), None)
        return Path(f"{data}#{found}") if found else None
    files = sorted(path for name in _SPLIT_NAMES[split] for path in _files_named(Path(data), name))
    if len(files) > 1:
        raise DataError(
            f"{files[0].name} and {files[1].name} are both the {split} split; remove one",
            path=data,
        )
    return files[0] if files else None


def train_file(data: str | Path) -> Path:
    """The file of rows to learn from: `data` itself, or the train split where it holds splits.

    Raises:
        DataError: There is no train split, or several files are it.
    """
    if not holds_splits(data):
        return Path(data)
    path = split_file(data, "train")
    if path is None:
        raise _no_train_split(data)
    return path


def _files_named(folder: Path, name: str) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        is_file = path.is_file() and kind_of(path) is not None
        stem = path.name.partition(".")[0].lower() if is_file else path.name
        stem = _ONLY_SHARD.sub("", stem)
        if stem == name and (is_file or is_saved(path)):
            yield path


@functools.cache
def _hub_splits(data: HubDataset) -> list[str]:
    try:
        from datasets import get_dataset_split_names
    except ModuleNotFoundError as error:
        raise missing_extra(f"{_HUB}{data.name}", "datasets", "train") from error
    with data_set_access(data.name, f"{_HUB}{data.name}"):
        return list(get_dataset_split_names(data.name, data.config))


def dev_file(data: str | Path) -> Path:
    """The file of rows to evaluate on: `data` itself, or the dev split of a folder.

    For a folder without a dev split, the path of a file that does not exist.
    """
    path = Path(data)
    return (split_file(path, "dev") or path / "dev.jsonl") if holds_splits(path) else path


def data_size(data: str | Path) -> int:
    """Bytes of a file or of the files of a folder; 0 if they are on the hub."""
    return sum(path.stat().st_size for path in _all_files(Path(data)))


def data_sha256(data: str | Path) -> str:
    """The sha256 of a file, or of the names and hashes of a folder's files.

    For the hub, of the data set's name: the library has its own fingerprint of the content.
    """
    path = Path(data)
    if path.is_file():
        return sha256_of(path)
    lines = [f"{file.relative_to(path)} {sha256_of(file)}\n" for file in _all_files(path)]
    return hashlib.sha256("".join(lines or [str(data)]).encode()).hexdigest()


def _all_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def _no_train_split(data: str | Path) -> DataError:
    """The error for DATA that holds splits, but no train split: it says what is there instead."""
    if is_hub(data):
        names = ", ".join(_hub_splits(HubDataset.parse(data)))
        return DataError(f"no train split, only {names}; choose one: {data}#SPLIT", path=data)
    folder = Path(data)
    saved = sorted(path.name for path in folder.iterdir() if is_saved(path))
    if saved:
        return DataError(
            f"no train split, only {', '.join(saved)}; give one: {folder / saved[0]}",
            path=data,
        )
    for place in (folder, folder / "data"):
        shards = sorted(path.name for path in place.glob("train-*-of-*"))
        if len(shards) > 1:
            return DataError(
                f"the train split is in {len(shards)} files, such as {shards[0]}; join them, as"
                " save_to_disk of datasets does",
                path=data,
            )
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(_files_named(inner, "train")):
            return DataError(f"no train split here, but in {inner.name}; give {inner}", path=data)
    return DataError("the folder has no train.jsonl (or .csv, …)", path=data)
