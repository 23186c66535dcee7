"""JSON files: size limit, and one clear reason for what is not JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.runtime.platform.json_file import read_json


def test_values_up_to_the_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    assert read_json(path, 10) == {"a": [1]}
    with pytest.raises(ValueError, match="larger than the limit: 10 bytes, at most 9"):
        read_json(path, 9)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", 9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "line 1"), (b'"\xff"', "not UTF-8"), (b"[" * 100_000, "nested too deeply"), (b"", "")],
)
def test_what_is_not_json(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"not JSON: .*{reason}"):
        read_json(path, 1 << 20)
