"""The paired tests that `--quantize auto` decides by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.publish import Publisher, Target
from edge.export.quantization.evaluation import Comparison, mcnemar_test, paired_t_test
from edge.export.source import SourceModel
from edge.runtime.model import load


@pytest.mark.parametrize(
    ("losses", "gains", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (8, 2, 56 / 1024), (3, 3, 42 / 64)],
)
def test_mcnemar(losses: int, gains: int, p: float) -> None:
    assert mcnemar_test(losses, gains) == pytest.approx(p)


def test_t_test() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(100)
    assert paired_t_test(noise - noise.mean()) == pytest.approx(0.5)
    assert paired_t_test(noise - noise.mean() + 1) < 1e-6
    assert paired_t_test(noise - noise.mean() - 1) > 0.999
    assert paired_t_test(np.zeros(10)) == 1.0
    assert paired_t_test(np.full(10, 0.1)) == 0.0


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
