"""Lock files: one holder at a time, also across processes and deletions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge.runtime.errors import UsageError
from edge.runtime.platform.lock import is_locked, lock_file


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    assert not is_locked(path)
    with lock_file(path, tmp_path):
        assert is_locked(path)
        with pytest.raises(UsageError, match="another process is writing"):
            lock_file(path, tmp_path).__enter__()
    assert not is_locked(path)


def test_a_deleted_lock_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_file(path, tmp_path):
        path.unlink()
        with lock_file(path, tmp_path):
            assert is_locked(path)


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from edge.runtime.platform.lock import *\n"
        "with lock_file(Path(sys.argv[1]), Path(sys.argv[1])): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(tmp_path / "lock")
        holder.kill()
    assert not is_locked(tmp_path / "lock")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        lock_file(tmp_path / "lock", tmp_path).__enter__()
    assert not (tmp_path / "elsewhere").exists()
