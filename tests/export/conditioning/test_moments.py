"""Input moments: each stack is measured once, with the values of a direct measurement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.api import export
from edge.export.conditioning.activations import input_moments
from edge.export.conditioning.moments import StoredMoments
from edge.export.conditioning.structure import input_names
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


def test_an_embedding_is_no_linear_layer(conditioned: SourceModel) -> None:
    assert conditioned.input_moments("shared.weight") is None


@pytest.mark.parametrize(
    ("format", "quantization"),
    [("onnx", "int4"), ("torchscript", "int8"), ("ctranslate2", "int8"), ("gguf", "q4_k_m")],
)
def test_an_export_measures_a_stack_once(
    random_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    quantization: str,
) -> None:
    stacks: list[str] = []
    measured = StoredMoments._measured

    def count(self: StoredMoments, of_encoder: bool) -> dict[str, np.ndarray]:
        stacks.append("encoder" if of_encoder else "decoder")
        return measured(self, of_encoder)

    monkeypatch.setattr(StoredMoments, "_measured", count)
    model = random_model(tied=False, d_model=256, d_ff=256)
    export(model, tmp_path / "artifact", format, quantization, max_error=99, mean_error=99)
    assert sorted(stacks) == ["decoder", "encoder"]
