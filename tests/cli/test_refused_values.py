"""Values and pairs of options that are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli.commands.serve import read_keys

Refused = Callable[..., str]


def test_text_from_standard_input_and_a_file_are_not_both_read(
    assert_refused: Refused, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "x"}\n')
    assert "not both" in assert_refused("run", "artifact", "-", "--input", rows)


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
@pytest.mark.parametrize("option", ["--max-error", "--mean-error"])
def test_an_error_is_not_negative(assert_refused: Refused, option: str, value: str) -> None:
    line = assert_refused("export", "model", "-f", "onnx", "-o", "out", f"{option}={value}")
    assert option in line
    assert "at least 0" in line


def test_a_default_length_is_within_the_limit(assert_refused: Refused) -> None:
    lengths = ("--max-new-tokens", 600, "--max-new-tokens-limit", 500)
    line = assert_refused("export", "model", "-f", "onnx", "-o", "out", *lengths)
    assert "--max-new-tokens 600 is above --max-new-tokens-limit 500" in line


@pytest.mark.parametrize("origin", ["foo", "https://app.example/", "app.example:80", ""])
def test_an_origin_has_a_scheme_and_no_path(assert_refused: Refused, origin: str) -> None:
    assert "is not an origin" in assert_refused("serve", "artifact", "--cors-origin", origin)


def test_comments_of_keys_may_be_indented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_API_KEY", raising=False)
    path = tmp_path / "keys"
    path.write_text("# new\nabc\n\n  # old key\n\t#older\n def \n")
    assert read_keys(path) == ("abc", "def")
