"""The one place where an exporter's weights may be replaced by a copy that computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.base import EXPORTERS
from edge.export.publish import ExportOptions, Publisher, Target, plan_targets
from edge.export.source import SourceModel
from edge.runtime.errors import ModelError, ParityError
from samples import FORMATS


def rescaled(source: SourceModel) -> SourceModel:
    """The same function: the last norm twice as large, a separate lm_head half as large."""
    weights = source.state_dict()
    weights["decoder.final_layer_norm.weight"] *= 2
    weights["lm_head.weight"] = source.tensor("lm_head.weight") / 2
    return source.with_weights(weights)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_exporter_writes_the_copys_weights(
    format_name: str,
    tied: bool,
    random_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tied head becomes an untied one; parity is measured against the original."""
    source = SourceModel.open(random_model(tied=tied))
    copy = rescaled(source)
    assert not copy.architecture.tied_head
    assert copy.weights_sha256 == source.weights_sha256
    given = []

    def source_for(*_: object) -> SourceModel:
        given.append(copy)
        return copy

    monkeypatch.setattr(Publisher, "source_for", source_for)
    publisher = Publisher(source)
    publisher.check.prepare()  # the reference, which reads the folder
    monkeypatch.setattr(
        "safetensors.safe_open", lambda *_, **__: pytest.fail("read the folder again")
    )
    [target] = plan_targets(format_name, ("none",))
    exported = publisher.publish(target, tmp_path / "out")
    assert given
    assert exported.parity.max_error < (5e-2 if format_name == "gguf" else 1e-3)


def test_quantized_targets_have_a_source_of_their_own(
    random_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SourceModel.open(random_model())
    copy = rescaled(source)
    monkeypatch.setattr(Publisher, "quantization_source", copy)
    publisher = Publisher(source)
    for name in FORMATS:
        exporter = EXPORTERS.load(name)()
        assert set(exporter.full_precision) < set(exporter.quantizations)
        for quantization in exporter.quantizations:
            full = quantization in exporter.full_precision
            assert publisher.source_for(exporter, quantization) is (source if full else copy)


def test_the_wrong_weights_fail_the_parity_check_of_the_original(
    random_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SourceModel.open(random_model())
    weights = source.state_dict()
    weights["lm_head.weight"] = 4 * source.tensor("lm_head.weight")
    monkeypatch.setattr(Publisher, "quantization_source", source.with_weights(weights))
    with pytest.raises(ParityError):
        Publisher(source).publish(Target("onnx", "int8"), tmp_path / "out")


def test_weights_that_do_not_fit_the_config_are_refused(random_model: Callable[..., Path]) -> None:
    source = SourceModel.open(random_model())
    weights = source.state_dict() | {"shared.weight": np.zeros((3, 3), np.float32)}
    with pytest.raises(ModelError, match=r"shared\.weight has the shape"):
        source.with_weights(weights)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_quantizes_the_weights_as_they_are(
    format_name: str, tied: bool, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    """With --no-condition."""
    options = ExportOptions(condition=False, max_error=9, mean_error=9)
    publisher = Publisher(SourceModel.open(random_model(tied=tied)), options)
    [target] = plan_targets(format_name, ("auto",))
    assert publisher.publish(target, tmp_path / "out").manifest.conditioning == {}
