"""The paired tests that `--quantize auto` decides by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.export.publish import Publisher, Target
from edge.export.quantization.evaluation import Comparison
from edge.export.source import SourceModel
from edge.runtime.model import load


def test_either_test_tells_them_apart() -> None:
    assert Comparison(64, 60, 0.0, loss_p=0.5, answers_p=0.5).is_indistinguishable
    assert not Comparison(64, 60, 0.1, loss_p=0.01, answers_p=0.5).is_indistinguishable
    assert not Comparison(64, 60, 0.0, loss_p=0.5, answers_p=0.01).is_indistinguishable
    # Where no answer is right, right answers say nothing: many changed ones do.
    assert not Comparison(64, 57, 0.0, loss_p=0.5, answers_p=1.0).is_indistinguishable


def test_generated_targets_are_the_reference(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The built-in rows' targets are the source's answers, so a float32 artifact repeats them."""
    publisher = Publisher(SourceModel.open(random_model()))
    exported = publisher.publish(Target("onnx", "float32"), tmp_path / "artifact")
    with load(exported.folder) as model:
        found = publisher.held_out.compare(model)
    assert publisher.calibration.generated
    assert found.identical == found.rows == len(publisher.held_out)
    assert abs(found.loss_difference) < 1e-4
