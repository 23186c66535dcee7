"""Hub ids: what is one, and what is a local path."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.runtime.errors import UsageError
from edge.runtime.hub import Repository, find_repository, snapshot_of


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "revision", "found"),
    [
        ("google/flan-t5-small", None, Repository("google/flan-t5-small")),
        ("t5-small", None, Repository("t5-small")),
        ("google/flan-t5-small", "v1", Repository("google/flan-t5-small", "v1")),
        ("google/flan-t5-small@refs/pr/4", None, Repository("google/flan-t5-small", "refs/pr/4")),
        (Path("a/b@c0ffee"), None, Repository("a/b", "c0ffee")),
        ("./t5-small", None, None),
        ("/models/t5", None, None),
        ("a/b/c", None, None),
        ("~x", None, None),
        ("a/b\n", None, None),
        ("x" * 5000, None, None),
        ("", None, None),
    ],
)
def test_what_an_id_is(text: str | Path, revision: str | None, found: Repository | None) -> None:
    assert find_repository(text, revision) == found


def test_a_local_folder_wins(tmp_path: Path) -> None:
    assert find_repository("me/tiny") == Repository("me/tiny")
    (tmp_path / "me" / "tiny").mkdir(parents=True)
    assert find_repository("me/tiny") is None
    # A slip of the pen in a path must not become a request.
    assert find_repository("me/tinny") is None
    (tmp_path / "other@v1").mkdir()
    assert find_repository("other@v1") is None


@pytest.mark.parametrize("revision", ["", "a b", "x" * 300, "main\n", "a?b", "@"])
def test_a_malformed_revision(revision: str) -> None:
    with pytest.raises(UsageError, match="can't be a branch"):
        find_repository("me/tiny", revision)


def test_two_revisions_and_one_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        find_repository("me/tiny@v1", "v2")
    with pytest.raises(UsageError, match="remove --revision"):
        find_repository(tmp_path, "v2")


def test_only_a_commit_is_pinned() -> None:
    assert Repository("me/tiny", "a" * 40).is_pinned
    assert not Repository("me/tiny", "main").is_pinned
    assert not Repository("me/tiny").is_pinned
    assert str(Repository("me/tiny", "v1")) == "me/tiny@v1"


def test_a_snapshot_says_what_it_is_of(tmp_path: Path) -> None:
    folder = tmp_path / "models--me--tiny" / "snapshots" / ("a" * 40)
    assert snapshot_of(folder) == ("me/tiny", "a" * 40)
    assert snapshot_of(tmp_path) is None
