"""Headers of GGUF files that ask for too much work."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from edge.runtime.engines.gguf.header import ArrayInfo, read_header
from edge.runtime.errors import ArtifactError

STRING, ARRAY = 8, 9


def file_with_strings(path: Path, count: int) -> Path:
    """A GGUF file whose only entry is an array of empty strings, a hole in the file."""
    key = b"general.tags"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
    head += struct.pack("<IIQ", ARRAY, STRING, count)
    path.write_bytes(head)
    with path.open("r+b") as handle:
        handle.truncate(-(-(len(head) + 8 * count) // 32) * 32)
    return path


def test_arrays_of_strings_are_bounded(tmp_path: Path) -> None:
    small = read_header(file_with_strings(tmp_path / "small", 1000))
    assert small.metadata == {"general.tags": ArrayInfo(STRING, 1000)}
    with pytest.raises(ArtifactError, match=r"4,194,305 values of .general.tags., more than"):
        read_header(file_with_strings(tmp_path / "large", (1 << 22) + 1))
