"""Folders and files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.runtime.errors import EdgeError, OutputExistsError
from edge.runtime.platform import atomic
from edge.runtime.platform.atomic import new_file, new_folder
from edge.runtime.platform.destination import check_destination


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as staging:
        (staging / "a").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["a"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("x")
        raise RuntimeError
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")
    with pytest.raises(OutputExistsError, match="--force"), new_folder(tmp_path / "out"):
        raise AssertionError("must not get here")
    assert names(tmp_path / "out") == ["old"]


def test_force_keeps_the_old_one_until_the_new_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("x")
    with pytest.raises(RuntimeError), new_folder(out, force=True) as staging:
        (staging / "new").write_text("y")
        raise RuntimeError
    assert names(out) == ["old"]
    with new_folder(out, force=True) as staging:
        (staging / "new").write_text("y")
        assert names(out) == ["old"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputExistsError, match="is a file"), new_folder(tmp_path / "out"):
        raise AssertionError("must not get here")


def test_a_file_is_replaced_at_once_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as staging:
        staging.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with new_file(path) as staging:
        staging.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["report.json"]


_FULL = """
import resource, sys
from pathlib import Path
from edge.runtime.platform.atomic import new_folder
from edge.runtime.platform.destination import check_destination
from edge.runtime.errors import EdgeError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with new_folder(sys.argv[1], force=True) as staging:
        (staging / "big").write_bytes(b"x" * 1_000_000)
except EdgeError as error:
    print(error)
"""


def test_no_room_for_a_file_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("x")
    ended = subprocess.run(
        [sys.executable, "-c", _FULL, str(out)], capture_output=True, text=True, check=True
    )
    assert "larger than the limit" in ended.stdout
    assert str(out) in ended.stdout
    assert names(tmp_path) == ["out"]
    assert names(out) == ["old"]


def test_the_check_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for force in (False, True):
        check_destination(tmp_path / "empty", force=force)
        check_destination(tmp_path / "new", force=force)
        check_destination(tmp_path / "new", force=force, file=True)
        with pytest.raises(OutputExistsError, match="must name a folder"):
            check_destination(tmp_path / "file", force=force)
        with pytest.raises(OutputExistsError, match="must name a file"):
            check_destination(tmp_path / "empty", force=force, file=True)
    (tmp_path / "config.json").touch()  # an output of edge's
    check_destination(tmp_path, force=True)
    check_destination(tmp_path / "file", force=True, file=True)
    for path, file in ((tmp_path, False), (tmp_path / "file", True)):
        with pytest.raises(OutputExistsError, match="--force"):
            check_destination(path, force=False, file=file)


_KILLED = """
import os, signal, sys
from edge.runtime.platform.atomic import new_file, new_folder
kind = new_folder if sys.argv[2] == "folder" else new_file
with kind(sys.argv[1]) as staging:
    if sys.argv[2] == "folder":
        (staging / "half").touch()
    print("ready", flush=True)
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def start(output: Path, kind: str, end: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(output), kind, end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_killed_processes_left_is_swept_and_live_ones_are_not(
    tmp_path: Path, kind: str
) -> None:
    alive = start(tmp_path / "alive", kind, "wait")
    start(tmp_path / "killed", kind, "die").communicate()
    (tmp_path / ".journal.partial").touch()  # of another kind
    assert len(names(tmp_path)) == 3
    with new_file(tmp_path / "new") as staging:
        assert not any("killed" in name for name in names(tmp_path))
        staging.write_text("x")
    out, err = alive.communicate()
    assert alive.returncode == 0, (out, err)
    assert names(tmp_path) == [".journal.partial", "alive", "new"]


def test_a_second_process_never_replaces_the_first_without_force(tmp_path: Path) -> None:
    first, second = (start(tmp_path / "out", "folder", "wait") for _ in range(2))
    first.communicate()
    assert first.returncode == 0
    inode = (tmp_path / "out").stat().st_ino
    _, err = second.communicate()
    assert second.returncode == 1
    assert "already exists; choose another --output, or --force" in err
    assert (tmp_path / "out").stat().st_ino == inode
    assert names(tmp_path) == ["out"]


def test_names_that_are_too_long_and_files_in_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for destination, reason in (
        (tmp_path / ("x" * 300), "the name is too long"),
        (tmp_path / "file" / "out", "[Nn]ot a (folder|directory)"),
    ):
        for kind in (new_folder, new_file):
            with pytest.raises(EdgeError, match=reason), kind(destination):
                pass
    for name in ("y" * 250, "é" * 125):
        with new_file(tmp_path / name) as staging:
            staging.touch()
    assert len(names(tmp_path)) == 3


def test_devices_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="/dev/full: no space left"), new_file("/dev/full") as file:
        file.write_text("x")
    assert Path("/dev/full").is_char_device()
    with new_file("/dev/null") as file:
        file.write_text("x")
    assert Path("/dev/null").is_char_device()


def test_errors_name_the_file_that_they_are_about(tmp_path: Path) -> None:
    output, missing = tmp_path / "out", tmp_path / "input" / "rows.jsonl"
    for kind in (new_folder, new_file):
        with pytest.raises(EdgeError) as caught, kind(output):
            missing.read_text()
        assert str(caught.value) == f"{missing}: No such file or directory"
        with pytest.raises(EdgeError) as caught, kind(output) as staging:
            (staging / "none" / "file").write_text("x")
        assert str(caught.value).startswith(f"{output}: a part of the path")
        with pytest.raises(EdgeError) as caught, kind(output):
            raise OSError(errno.ENOSPC, "full")  # of a write: no file is named
        assert str(caught.value).startswith(f"{output}: no space left on the disk")


def test_the_umask_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "file") as staging:
            staging.touch()
        with new_folder(tmp_path / "folder"):
            pass
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that can't swap two folders."""
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)


@pytest.mark.usefixtures("without_exchange")
def test_a_folder_is_replaced_where_two_cannot_be_swapped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("old", "new"):
        with new_folder(out, force=True) as staging:
            (staging / name).touch()
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


_KILLED_BETWEEN = """
import os, signal, sys
from edge.runtime.platform import atomic
atomic._exchange = lambda first, second: False
rename, calls = os.rename, []
def rename_once(first, second):
    if calls:
        print("ready", flush=True)
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(rename(first, second))
os.rename = rename_once
with atomic.new_folder(sys.argv[1], force=True) as staging:
    (staging / "new").touch()
"""


@pytest.mark.parametrize("replaced", [False, True])
def test_a_replacement_that_a_crash_interrupted_is_undone(tmp_path: Path, replaced: bool) -> None:
    out = tmp_path / "out"
    with new_folder(out) as staging:
        (staging / "old").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED_BETWEEN, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with new_file(tmp_path / "other") as staging:  # the process lives: nothing is touched
        staging.touch()
    assert not out.exists()
    process.communicate()
    if replaced:
        out.mkdir()
        (out / "newer").touch()
    with new_file(tmp_path / "other") as staging:
        staging.touch()
    assert names(tmp_path) == ["other", "out"]
    assert names(out) == ["newer" if replaced else "old"]
