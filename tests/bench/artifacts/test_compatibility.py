"""Notes on artifacts and rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.bench.artifacts.compatibility import _unknown_id


@pytest.mark.parametrize(
    "values", [{"model": []}, {"model": None}, {}, [], 5, {"model": {"unk_id": "2"}}]
)
def test_a_tokenizer_without_unknown_tokens_has_no_id(values: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    assert _unknown_id(path) is None
    path.write_text("no JSON")
    assert _unknown_id(path) is None
    path.write_text('{"model": {"unk_id": 2}}')
    assert _unknown_id(path) == 2
