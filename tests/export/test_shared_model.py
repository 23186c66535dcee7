"""A trained model: every float32 artifact gives the same answers to the dev rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bench.artifacts.accuracy import measure_accuracy
from edge.export.api import publish_all
from edge.export.publish import Publisher, plan_targets
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.rows import read_rows
from samples import FORMATS


@pytest.fixture(scope="module")
def publisher(shared: Path) -> Publisher:
    return Publisher(SourceModel.open(shared / "models" / "disfl-tiny"))


@pytest.mark.parametrize("format_name", FORMATS)
def test_503_of_997_rows_exactly_right(
    format_name: str, publisher: Publisher, shared: Path, tmp_path: Path
) -> None:
    rows = read_rows(shared / "data" / "disfl_qa" / "dev.jsonl")
    publish_all(publisher, plan_targets(format_name, ("none",)), tmp_path / "artifact")
    with load(tmp_path / "artifact", threads=2) as model:
        accuracy = measure_accuracy(model, rows)
    assert round(accuracy.exact_match * len(rows)) == 503
    assert accuracy.rouge_l == pytest.approx(0.846, abs=5e-4)
    assert accuracy.eval_loss == pytest.approx(0.408, abs=5e-4)
