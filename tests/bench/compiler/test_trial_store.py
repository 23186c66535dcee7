"""The folder of a search: what continues, what is discarded, and what is left alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bench.compiler.entries import is_export, is_source, reference_shape, timed_shape
from edge.bench.compiler.trial_store import TrialStore
from edge.runtime.errors import EdgeError, OutputExistsError, UsageError

FAILED = {"failed": "out of memory"}
SOURCE = {"ready": True, "plain_greedy": True, "generation": {"num_beams": 1}, "prompt": "{input}"}
EXPORT = {"size": 9, "seconds": 1.5, "parity": {}, "shortlist_size": None}
TIMED = {
    "ms": [1.0, 2],
    "answers": ["a", ""],
    "new_tokens": [1, 1],
    "truncated": 0,
    "load_ms": 3.5,
    "peak_rss": 5,
}


def fill(work: Path, identity: dict[str, Any] | None = None) -> Path:
    """The folder of a search with one entry."""
    with TrialStore.open(work, identity or {"data": "one"}, work.with_suffix("")) as store:
        store.put("timed", FAILED)
    return work


def test_results_of_another_search_are_discarded(tmp_path: Path) -> None:
    work, output = fill(tmp_path / "out.work"), tmp_path / "out"
    with TrialStore.open(work, {"data": "one"}, output) as store:
        assert store.found == 1
        assert store.get("timed", timed_shape(1)) == FAILED
        (work / "entries" / "cut.json").write_text('{"ms": [1.')
        assert store.get("cut", timed_shape(1)) is None
        with pytest.raises(UsageError, match="another process"), TrialStore.open(work, {}, output):
            pass
    with TrialStore.open(work, {"data": "other"}, output) as store:
        assert store.found == 0
        assert store.get("timed", timed_shape(1)) is None


def test_artifacts_of_another_search_are_discarded(artifacts: Path, tmp_path: Path) -> None:
    work = fill(tmp_path / "out.work")
    for folder in artifacts.iterdir():
        shutil.copytree(folder, work / "artifacts" / folder.name)
    (work / "artifacts" / ".onnx-int4.edge-abcdefgh.partial").mkdir()
    fill(work, {"data": "other"})
    assert sorted(path.name for path in work.iterdir()) == ["entries", "search.json"]


def write_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("years of work")


FOREIGN: list[tuple[str, Callable[[Path], None]]] = [
    ("thesis.txt", write_file),
    ("entries/thesis.txt", write_file),
    ("entries/pipe.json", os.mkfifo),
    ("entries/link.json", lambda path: path.symlink_to("/dev/zero")),
    ("artifacts/thesis/chapter.txt", write_file),
    ("artifacts/onnx-int8/thesis.txt", write_file),
]


@pytest.mark.parametrize(("name", "create"), FOREIGN)
def test_a_search_with_foreign_files_is_left_alone(
    name: str, create: Callable[[Path], None], tmp_path: Path
) -> None:
    work = fill(tmp_path / "out.work")
    create(work / name)
    for identity in ({"data": "one"}, {"data": "other"}):
        with pytest.raises(OutputExistsError, match="not the folder of a search"):
            fill(work, identity)
    assert os.path.lexists(work / name)
    assert (work / "entries" / "timed.json").exists()


@pytest.mark.parametrize("identity", [None, '{"name": "my search engine"}', "[]", "{"])
def test_a_folder_of_something_else_is_left_alone(identity: str | None, tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    work.mkdir()
    mine = work / ("thesis.txt" if identity is None else "search.json")
    mine.write_text(identity or "years of work")
    with pytest.raises(OutputExistsError, match="not the folder of a search"):
        fill(work)
    assert mine.read_text() == (identity or "years of work")


def test_what_is_no_folder_of_files_is_refused(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "out.work", fill(tmp_path / "elsewhere.work")
    refused = pytest.raises(OutputExistsError, match="not the folder of a search")
    work.symlink_to(elsewhere)
    with refused:
        fill(work, {"data": "other"})
    assert (elsewhere / "entries" / "timed.json").exists()
    work.unlink()
    work.write_text("a file")
    with refused:
        fill(work)
    work.unlink()
    work.mkdir()
    os.mkfifo(work / "search.json")
    with refused:
        fill(work)


def test_a_lock_of_something_else_is_named_and_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "out.work.lock"
    lock.mkdir()
    with pytest.raises(UsageError, match=r"out\.work\.lock is not a file"):
        fill(tmp_path / "out.work")
    lock.rmdir()
    lock.write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"out\.work\.lock already exists"):
        fill(tmp_path / "out.work")
    assert lock.read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [lock]


def test_nothing_is_left_of_a_search_without_results(tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    with pytest.raises(EdgeError, match="NaN"), TrialStore.open(work, {}, tmp_path / "out"):
        raise EdgeError("the weights hold NaN")
    assert not list(tmp_path.iterdir())


def test_files_that_came_during_a_search_are_kept(tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    with TrialStore.open(work, {}, tmp_path / "out") as store:
        (work / "thesis.txt").write_text("years of work")
        store.remove()
    assert (work / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("is_whole", "whole", "damaged"),
    [
        (is_source, [SOURCE], [{"x": 1}, {**SOURCE, "prompt": {}}, {**SOURCE, "generation": 7}]),
        (
            reference_shape(3),
            [{"answers": ["a", "b", ""]}],
            [{"a": 1}, {"answers": ["a"]}, {"answers": 5}, {"answers": [1, None, {}]}],
        ),
        (
            is_export,
            [EXPORT, {"refused": "too far"}, FAILED],
            [{**EXPORT, "size": "big"}, {"y": 1}, {"size": 9}, {"refused": ""}, {"failed": {}}],
        ),
        (
            timed_shape(2),
            [TIMED, FAILED],
            [
                {"x": 1},
                {"ms": "abc", "answers": 5},
                {**TIMED, "more": 1},
                {**TIMED, "ms": [1.0]},
                {**TIMED, "ms": [1.0, float("nan")]},
                {**TIMED, "load_ms": float("inf")},
                {**TIMED, "answers": ["a", None]},
                {**TIMED, "peak_rss": True},
                {"failed": 5},
            ],
        ),
    ],
)
def test_a_damaged_entry_is_ignored(
    is_whole: Callable[[Any], bool],
    whole: list[dict[str, Any]],
    damaged: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    with TrialStore.open(tmp_path / "out.work", {}, tmp_path / "out") as store:
        for entry in whole:
            store.put("entry", entry)
            assert store.get("entry", is_whole) == entry
        for entry in damaged:
            store.put("entry", entry)
            assert store.get("entry", is_whole) is None, entry
