"""Sensitivities to rounding: the estimate against rounding itself, and the choice by size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.export.conditioning.calibration import Calibration
from edge.export.publish import Publisher
from edge.export.quantization import sensitivity
from edge.export.quantization.grid import dequantize
from edge.export.quantization.rounding import quantize
from edge.export.quantization.sensitivity import (
    FOUR_BITS,
    Sensitivity,
    decoder_groups,
    precise_weights,
    sensitivities,
)
from edge.export.reference import TorchReference
from edge.export.source import SourceModel


@pytest.fixture(scope="module")
def calibrated(random_model: Callable[..., Path]) -> tuple[SourceModel, Calibration]:
    publisher = Publisher(SourceModel.open(random_model(tied=False)))
    return publisher.quantization_source, publisher.calibration.fitted


def test_the_estimate_is_what_rounding_does(
    calibrated: tuple[SourceModel, Calibration],
) -> None:
    """Each group rounded to the nearest, alone: the changes that the estimate expects."""
    source, rows = calibrated
    reference = TorchReference(source, pieces=source.pieces)

    def scores() -> np.ndarray:
        return np.concatenate(reference.score(rows.inputs, rows.targets))

    expected = scores()
    ratios = []
    for found in sensitivities(source, rows, FOUR_BITS):
        originals = {}
        for name in found.names:
            layer = source.torch_model.get_submodule(name.removesuffix(".weight"))
            originals[layer] = layer.weight.data
            weight = source.tensor(name)
            rounded = dequantize(*quantize(weight, FOUR_BITS), weight.shape[1])
            layer.weight.data = torch.from_numpy(rounded)
        ratios.append(found.error / float(((scores() - expected) ** 2).mean()))
        for layer, original in originals.items():
            layer.weight.data = original
    assert 0.6 < float(np.exp(np.mean(np.log(ratios)))) < 1.7
    assert all(0.25 < ratio < 4 for ratio in ratios), ratios


def test_the_same_rows_give_the_same_choice(calibrated: tuple[SourceModel, Calibration]) -> None:
    source, rows = calibrated
    assert precise_weights(source, rows) == precise_weights(source, rows)


def test_bits_go_where_they_save_most(
    calibrated: tuple[SourceModel, Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest error per weight first, and what no longer fits is left out."""
    source, rows = calibrated
    measured = [
        Sensitivity(("small and sensitive",), 10, 1.0),
        Sensitivity(("large and sensitive",), 300, 20.0),
        Sensitivity(("large and dull",), 600, 2.0),
        Sensitivity(("medium",), 50, 0.5),
    ]
    monkeypatch.setattr(sensitivity, "sensitivities", lambda *_: measured)
    assert precise_weights(source, rows) == {"small and sensitive", "medium"}


def test_every_matrix_of_a_step_is_in_one_group(random_model: Callable[..., Path]) -> None:
    source = SourceModel.open(random_model(tied=False, feed_forward_proj="relu"))
    names = [name for group in decoder_groups(source.architecture) for name in group]
    read = {
        name
        for name, array in source.state_dict().items()
        if name.startswith(("decoder.block", "lm_head"))
        and array.ndim == 2
        and "bias" not in name
        and not name.endswith(("EncDecAttention.k.weight", "EncDecAttention.v.weight"))
    }
    assert len(names) == len(set(names))
    assert set(names) == read
