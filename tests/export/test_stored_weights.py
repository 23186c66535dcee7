"""Weights in a temporary file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.export.weights import StoredWeights
from edge.runtime.errors import EdgeError

_FULL = """
import resource
import numpy as np
from edge.export.weights import StoredWeights
from edge.runtime.errors import EdgeError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    StoredWeights({"a": np.ones(200_000, np.float32)})
except EdgeError as error:
    print(error)
"""


def test_arrays_come_back() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
    stored = StoredWeights(arrays)
    assert list(stored) == ["a", "b"]
    for name, array in arrays.items():
        assert stored[name].dtype == np.float32
        np.testing.assert_array_equal(stored[name], array)


def test_no_space_names_the_temporary_folder(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FULL],
        capture_output=True,
        text=True,
        check=True,
        env={"TMPDIR": str(tmp_path)},
    )
    assert ended.stdout.startswith(f"{tmp_path}: weights can't be written to a temporary file (")
    assert "Set TMPDIR" in ended.stdout


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(**_: str) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("edge.export.weights.tempfile.TemporaryFile", no_folder)
    with pytest.raises(EdgeError, match="No usable temporary directory found"):
        StoredWeights({})
