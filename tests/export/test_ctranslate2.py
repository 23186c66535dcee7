"""The CTranslate2 exporter: every kind of T5 answers as in transformers, log-probabilities too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch

from edge.export.ctranslate2 import CTranslate2Exporter, vocabulary_tokens
from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.export.tolerance import EXACT
from edge.runtime import load
from edge.runtime.errors import ModelError, UsageError

KINDS: dict[str, dict[str, Any]] = {
    "tied and scaled": {},
    "untied, written by transformers 4": {"tied": False, "written_by": 4},
    "untied, written by transformers 5": {"tied": False},
    "unequal depth": {"num_layers": 3, "num_decoder_layers": 1},
    "heads narrower than the model": {"num_heads": 3, "d_kv": 8},
    "heads wider than the model": {"num_heads": 6, "d_kv": 24},
    "relu": {"feed_forward_proj": "relu"},
    "gated silu": {"feed_forward_proj": "gated-silu"},
    "other buckets": {
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 20,
    },
    "coarse norm": {"layer_norm_epsilon": 1e-2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_t5_is_exact(
    kind: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    source = SourceModel.open(random_model(**KINDS[kind]))
    exported = Publisher(source).publish(Target("ctranslate2", "float32"), tmp_path / "artifact")
    assert exported.parity.greedy_identical == exported.parity.inputs
    assert exported.parity.max_error < EXACT.max_error


def test_an_untied_head_is_not_scaled(random_model: Callable[..., Path], tmp_path: Path) -> None:
    """A fault of CTranslate2's loader, which shows in log-probabilities only."""
    source = SourceModel.open(random_model(tied=False))
    assert source.torch_model.config.tie_word_embeddings  # this misleads the loader
    Publisher(source).publish(Target("ctranslate2", "float32"), tmp_path / "artifact")
    ids, target = [5, 9, 30, 1], [8, 12, 40, 1]
    with torch.inference_mode():
        logits = source.torch_model(
            input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *target[:-1]]])
        ).logits[0]
    expected = logits.log_softmax(-1)[range(4), target].numpy()
    with load(tmp_path / "artifact") as model:
        np.testing.assert_allclose(model.score_tokens([ids], [target])[0], expected, atol=1e-3)


def test_exporting_leaves_the_source_as_it_was(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    source = SourceModel.open(random_model())
    before = {name: value.clone() for name, value in source.torch_model.state_dict().items()}
    CTranslate2Exporter().write(source, "int8", tmp_path)
    for name, value in source.torch_model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_every_id_has_a_unique_name(random_model: Callable[..., Path], tmp_path: Path) -> None:
    source = SourceModel.open(random_model())
    names = vocabulary_tokens(source)
    assert len(names) == len(set(names)) == source.architecture.vocab_size
    assert names[:3] == ["<pad>", "</s>", "<unk>"]
    assert CTranslate2Exporter().write(source, "float32", tmp_path)["compute_type"] == "float32"
    assert json.loads((tmp_path / "shared_vocabulary.json").read_text(encoding="utf-8")) == names
    # CTranslate2 alone loads the folder, too.
    translator = ctranslate2.Translator(str(tmp_path), device="cpu")
    [result] = translator.translate_batch([[names[7], "</s>"]], beam_size=1, max_decoding_length=4)
    assert set(result.hypotheses[0]) <= set(names)


@pytest.mark.parametrize("quantization", CTranslate2Exporter.quantizations)
def test_every_quantization_runs_within_its_limits(
    quantization: str, shared: Path, tmp_path: Path
) -> None:
    source = SourceModel.open(shared / "models" / "disfl-tiny")
    target = Target("ctranslate2", quantization)
    exported = Publisher(source).publish(target, tmp_path / "artifact")
    sizes = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0}
    weights = (tmp_path / "artifact" / "model.bin").stat().st_size
    full = (source.folder / "model.safetensors").stat().st_size
    assert weights < full * sizes[quantization] / 4 * 1.2
    assert exported.manifest.runtime["threads"] == 1


def test_names_of_quantizations() -> None:
    assert CTranslate2Exporter.resolve("auto") == "int8"
    assert CTranslate2Exporter.resolve("none") == "float32"
    assert CTranslate2Exporter.resolve("FP16") == "float16"
    with pytest.raises(UsageError, match="unknown ctranslate2 quantization 'int16'"):
        CTranslate2Exporter.resolve("int16")


def test_what_ctranslate2_cannot_represent_is_one_line(
    random_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SourceModel.open(random_model())
    monkeypatch.setattr("edge.export.ctranslate2.vocabulary_tokens", lambda source: ["<pad>"] * 3)
    with pytest.raises(ModelError, match="CTranslate2 can't represent this model") as caught:
        CTranslate2Exporter().write(source, "float32", tmp_path)
    assert "\n" not in str(caught.value)
