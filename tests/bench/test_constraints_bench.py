"""The benchmark of constrained decoding, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("llguidance")

from edge.bench.constraints import measure
from edge.runtime import load


def test_each_kind_of_answer_is_timed(artifacts: Path) -> None:
    with load(artifacts / "onnx-float32") as model:
        ids = tuple(model.encode(["when was the old bridge built"])[0][0])
        cases = {case.name: case for case in measure(model, ids, new_tokens=24, runs=3)}
    endless = ("free", "regex", "json_schema", "grammar")
    assert [cases[name].tokens for name in endless] == [24] * 4
    assert 1 < cases["choices"].tokens == cases["free, as short"].tokens <= 24
    for case in cases.values():
        assert 0 < case.low <= case.ms <= case.high
        assert case.per_token == case.ms / case.tokens
