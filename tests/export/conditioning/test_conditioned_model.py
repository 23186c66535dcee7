"""Conditioned models: the same function, without outliers, by seed and rows alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge.bench.quantization.outliers import inject_outliers
from edge.export.conditioning.activations import largest_inputs
from edge.export.conditioning.calibration import Calibration, read_calibration
from edge.export.conditioning.model import condition
from edge.export.conditioning.structure import input_names
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.errors import ModelError
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer

ModelFactory = Callable[..., Path]
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False},
    "relu": {"feed_forward_proj": "relu"},
    "silu": {"feed_forward_proj": "silu"},
    "deeper decoder": {"num_layers": 1, "num_decoder_layers": 3},
    "odd width": {"d_model": 33, "tied": False},
    "odd head": {"d_kv": 9, "num_heads": 3},
    "width of 3 × 2^n": {"d_model": 96},
}


def built_in_rows(source: SourceModel) -> Calibration:
    """The built-in texts as the model's tokenizer reads them."""
    tokenizer = Tokenizer(source.folder / TOKENIZER_NAME, eos=1)
    return read_calibration(None, source, tokenizer, Prompt(), 128)


@pytest.mark.parametrize("name", SHAPES)
def test_the_function_stays(random_model: ModelFactory, tmp_path: Path, name: str) -> None:
    """Of a plain model and of one with outliers; `condition` itself refuses more than 1e-4."""
    plain = random_model(**SHAPES[name])
    for folder in (plain, inject_outliers(plain, tmp_path / "hard", norm=32, feed_forward=64)):
        source = SourceModel.open(folder)
        conditioned = condition(source, built_in_rows(source))
        assert conditioned.record["max_relative_logit_error"] < 1e-4
        gains = conditioned.source.tensor("encoder.final_layer_norm.weight")
        assert (gains == 1).all()


def test_outliers_go(random_model: ModelFactory, tmp_path: Path) -> None:
    """The largest input of each layer, relative to the typical channel, with and without."""
    folder = inject_outliers(random_model(), tmp_path / "hard", norm=64, feed_forward=256)
    source = SourceModel.open(folder)
    rows = built_in_rows(source)
    names = input_names(source.architecture)

    def peaks(model: SourceModel) -> float:
        found = largest_inputs(model.torch_model, model.architecture, rows, names)
        return float(np.median([values.max() / np.median(values) for values in found.values()]))

    before, after = peaks(source), peaks(condition(source, rows).source)
    assert before > 8
    assert after < 3


def test_seed_and_rows_decide(random_model: ModelFactory) -> None:
    source = SourceModel.open(random_model())
    rows = built_in_rows(source)
    name = "decoder.block.0.layer.2.DenseReluDense.wo.weight"
    one, same, other = (
        condition(source, rows, seed=seed).source.tensor(name) for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert not np.allclose(one, other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_damaged_weight_is_named(random_model: ModelFactory, value: float) -> None:
    folder = random_model()
    weights = load_file(folder / "model.safetensors")
    name = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    weights[name][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    source = SourceModel.open(folder)
    rows = Calibration([[5, 1]] * 8, [[6, 1]] * 8, "rows", None, 8, 0)
    with pytest.raises(ModelError, match=name):
        condition(source, rows)
