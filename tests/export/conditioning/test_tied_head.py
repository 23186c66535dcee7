"""A tied head after conditioning: stored once in ONNX with 8 bits, and still the same function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path]) -> SourceModel:
    """A tied model whose last gain differs from channel to channel."""
    folder = random_model()
    weights = load_file(folder / "model.safetensors")
    gain = np.random.default_rng(0).uniform(0.5, 2, 64).astype(np.float32)
    weights["decoder.final_layer_norm.weight"] = gain
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return SourceModel.open(folder)


def test_the_projection_times_the_embedding_is_the_head(source: SourceModel) -> None:
    conditioned = Publisher(source).quantization_source
    projection = conditioned.head_projection
    assert projection is not None
    head = conditioned.tensor("shared.weight") @ projection
    np.testing.assert_allclose(head, conditioned.tensor("lm_head.weight"), atol=1e-5)


@pytest.mark.parametrize(("quantization", "stored"), [("int8", False), ("int4", True)])
def test_eight_bits_store_one_matrix(
    source: SourceModel, tmp_path: Path, quantization: str, stored: bool
) -> None:
    exported = Publisher(source).publish(Target("onnx", quantization), tmp_path / "artifact")
    graph = onnx.load(exported.folder / "decoder.onnx", load_external_data=False).graph
    names = [tensor.name for tensor in graph.initializer]
    assert any(name.startswith("lm_head") for name in names) == stored
    assert ("head_projection" in names) != stored
    assert exported.manifest.quantization == quantization
    assert exported.parity.mean_error < (0.1 if quantization == "int8" else 0.4)


def test_an_untied_head_has_no_projection(random_model: Callable[..., Path]) -> None:
    source = SourceModel.open(random_model(tied=False))
    assert Publisher(source, ExportOptions()).quantization_source.head_projection is None
