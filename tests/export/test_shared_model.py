"""A trained model: every float32 artifact gives the same answers to the dev rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bench.artifacts.accuracy import Accuracy, measure_accuracy
from edge.export.api import publish_all
from edge.export.publish import Publisher, plan_targets
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.rows import read_rows
from samples import FORMATS

FAST_ROWS = 150


@pytest.fixture(scope="module")
def publisher(shared: Path) -> Publisher:
    return Publisher(SourceModel.open(shared / "models" / "disfl-tiny"))


def measure(
    publisher: Publisher, format_name: str, shared: Path, folder: Path, limit: int | None
) -> Accuracy:
    rows = read_rows(shared / "data" / "disfl_qa" / "dev.jsonl")[:limit]
    publish_all(publisher, plan_targets(format_name, ("none",)), folder)
    with load(folder, threads=1) as model:
        return measure_accuracy(model, rows)


@pytest.mark.parametrize("format_name", FORMATS)
def test_86_of_the_first_150_rows_exactly_right(
    format_name: str, publisher: Publisher, shared: Path, tmp_path: Path
) -> None:
    accuracy = measure(publisher, format_name, shared, tmp_path / "artifact", FAST_ROWS)
    assert round(accuracy.exact_match * FAST_ROWS) == 86
    assert accuracy.eval_loss == pytest.approx(0.2779, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", FORMATS)
def test_503_of_997_rows_exactly_right(
    format_name: str, publisher: Publisher, shared: Path, tmp_path: Path
) -> None:
    accuracy = measure(publisher, format_name, shared, tmp_path / "artifact", None)
    assert round(accuracy.exact_match * 997) == 503
    assert accuracy.rouge_l == pytest.approx(0.846, abs=5e-4)
    assert accuracy.eval_loss == pytest.approx(0.408, abs=5e-4)
