"""Input moments: one stack at a time, with the values that a direct measurement has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.conditioning.activations import input_moments
from edge.export.conditioning.structure import HEAD, input_names
from edge.export.publish import Publisher
from edge.export.source import SourceModel

ENCODER = "encoder.block.0.layer.0.SelfAttention.q.weight"
CROSS = "decoder.block.0.layer.1.EncDecAttention.k.weight"


@pytest.fixture(scope="module")
def publisher(random_model: Callable[..., Path]) -> Publisher:
    return Publisher(SourceModel.open(random_model()))


@pytest.fixture
def conditioned(publisher: Publisher) -> SourceModel:
    return publisher.quantization_source


def test_both_stacks_have_the_moments_of_the_whole_model(
    publisher: Publisher, conditioned: SourceModel
) -> None:
    names = input_names(conditioned.architecture)
    rows = publisher.calibration.fitted
    expected = input_moments(conditioned.torch_model, conditioned.architecture, rows, names)
    for weight, read in names.items():
        found = conditioned.input_moments(weight)
        assert found is not None
        np.testing.assert_allclose(found, expected[read], rtol=1e-4, atol=1e-6)


def test_one_stack_is_kept_at_a_time(
    conditioned: SourceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def counted(*arguments: object) -> dict[str, np.ndarray]:
        found = input_moments(*arguments)  # type: ignore[arg-type]
        measured.append(len(found))
        return found

    monkeypatch.setattr("edge.export.conditioning.moments.input_moments", counted)
    conditioned.release_memory()
    for weight in (ENCODER, ENCODER, CROSS, HEAD):
        assert conditioned.input_moments(weight) is not None
    assert len(measured) == 2
    assert sum(measured) > max(measured)
    conditioned.release_memory()
    conditioned.input_moments(HEAD)
    assert len(measured) == 3


def test_an_embedding_is_no_linear_layer(conditioned: SourceModel) -> None:
    assert conditioned.input_moments("shared.weight") is None
