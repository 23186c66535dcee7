"""JSON files: size limit, and one clear reason for what is not JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.runtime.platform.json_file import parse_json, read_json


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
    [
        (b"{", "column 2"),
        (b"{\n\n]", "line 3, column 1"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", ""),
    ],
)
def test_what_is_not_json(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"not JSON: .*{reason}"):
        read_json(path, 1 << 20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("9" * 5000, "a number has thousands of digits"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply"),
        ('["\\ud800"]', "lone surrogate"),
    ],
)
def test_what_python_alone_would_take_or_fail_on(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"not JSON: .*{reason}"):
        read_json(path, 1 << 20)


def test_depth_is_counted_by_level_and_not_by_brackets() -> None:
    assert parse_json("[" * 100 + "]" * 100)
    assert len(parse_json("[" + "[1]," * 5000 + "[]]")) == 5001
    assert parse_json('"' + "[" * 500 + '"') == "[" * 500
    assert parse_json('["\\ud83d\\ude00"]') == ["😀"]


def test_a_file_without_an_end() -> None:
    with pytest.raises(ValueError, match="larger than the limit"):
        read_json("/dev/zero", 1000)
