"""umT5: a position bias in every layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.errors import ModelError
from samples import TEXTS, save_letter_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import UMT5Config, UMT5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("umt5") / "model"
    save_letter_model(folder)  # its tokenizer
    torch.manual_seed(5)
    config = UMT5Config(
        vocab_size=160,
        d_model=64,
        d_kv=16,
        num_heads=3,
        d_ff=96,
        num_layers=3,
        num_decoder_layers=2,
    )
    model = UMT5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_(0, 1.5)  # so that another layer's bias shows
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_umt5_answers_as_its_source(folder: Path, quantization: str, tmp_path: Path) -> None:
    publisher = Publisher(SourceModel.open(folder))
    exported = publisher.publish(Target("onnx", quantization), tmp_path / "artifact")
    assert exported.manifest.architecture.model_type == "umt5"
    if quantization == "float32":
        assert exported.parity.greedy_identical == exported.parity.inputs
        assert exported.parity.lookup_identical == exported.parity.inputs
        assert exported.parity.max_error < 1e-3
    with load(exported.folder) as model:
        assert len(model.generate(list(TEXTS), num_beams=2)) == len(TEXTS)


@pytest.mark.parametrize("name", ["ctranslate2", "gguf", "torchscript"])
def test_other_formats_are_refused(folder: Path, name: str, tmp_path: Path) -> None:
    publisher = Publisher(SourceModel.open(folder))
    with pytest.raises(ModelError, match="umT5 works with --format onnx alone"):
        publisher.publish(Target(name, "int8"), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []
