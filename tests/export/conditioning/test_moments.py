"""Input moments: one stack at a time, with the values that a direct measurement has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.api import export
from edge.export.conditioning.activations import input_moments
from edge.export.conditioning.moments import StackMoments
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


@pytest.mark.parametrize(
    ("format", "quantization", "measured"),
    [
        ("onnx", "int4", ["encoder", "decoder"]),
        ("torchscript", "int8", ["decoder", "encoder"]),
        ("ctranslate2", "int8", ["encoder", "decoder"]),
        # The quantizer needs all of them at once; the file then begins with the decoder's.
        ("gguf", "q4_k_m", ["encoder", "decoder", "encoder"]),
    ],
)
def test_an_export_measures_a_stack_once(
    random_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    quantization: str,
    measured: list[str],
) -> None:
    stacks: list[str] = []
    measure = StackMoments._measure

    def count(self: StackMoments, stack: str) -> None:
        stacks.append("encoder" if stack == "encoder" else "decoder")
        measure(self, stack)

    monkeypatch.setattr(StackMoments, "_measure", count)
    model = random_model(tied=False, d_model=256, d_ff=256)
    export(model, tmp_path / "artifact", format, quantization, max_error=99, mean_error=99)
    assert stacks == measured
