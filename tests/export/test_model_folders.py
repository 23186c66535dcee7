"""Model folders as people have them: read, or refused in one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.errors import ModelError
from edge.runtime.hub import Repository
from edge.runtime.text.tokenization import Tokenizer
from edge.train.config import TrainConfig
from edge.train.model.loading import load_pretrained, load_tokenizer
from edge.train.preflight import preflight
from samples import FORMATS, save_letter_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_letter_model(tmp_path / "model", tied=False)
    return tmp_path / "model"


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(old | values), encoding="utf-8")


def everywhere(folder: Path, tmp_path: Path) -> list[str]:
    """The refusals of export, train and check."""
    found = []
    with pytest.raises(ModelError) as caught:
        Publisher(SourceModel.open(folder)).publish(Target("onnx", "int8"), tmp_path / "out")
    found.append(str(caught.value))
    with pytest.raises(ModelError) as caught:
        load_pretrained(str(folder))
    found.append(str(caught.value))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "ab", "target": "cd"}\n' * 3, encoding="utf-8")
    checks = preflight(
        TrainConfig(data=rows, output=tmp_path / "o", model=str(folder), dev_ratio=0.5)
    )
    found.append("; ".join(c.detail for c in checks if c.status == "failed"))
    assert not (tmp_path / "out").exists()
    return found


@pytest.mark.parametrize(
    ("kind", "shown"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")], ids=str
)
def test_quantized_weights_are_refused_by_name(
    kind: torch.dtype, shown: str, folder: Path, tmp_path: Path
) -> None:
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"

    def quantize(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = (weights[name] * 20).to(kind)

    change_weights(folder, quantize)
    for refusal in everywhere(folder, tmp_path):
        assert f"{name} is stored as {shown}" in refusal


def test_a_quantization_config_is_refused(folder: Path, tmp_path: Path) -> None:
    change_json(
        folder / "config.json",
        quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
    )
    for refusal in everywhere(folder, tmp_path):
        assert "quantized already (quantization_config in config.json: bitsandbytes)" in refusal


def test_an_adapter_names_its_base_and_edge_merge(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").unlink()
    change_json(folder / "adapter_config.json", base_model_name_or_path="google/flan-t5-small")
    for refusal in everywhere(folder, tmp_path):
        assert f"edge merge google/flan-t5-small {folder}" in refusal


def test_a_pickle_that_is_not_weights_is_not_blamed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"\x80")
    for refusal in everywhere(folder, tmp_path):
        assert "no weights here" in refusal
        assert "pickle" not in refusal.rpartition("model: ")[2]
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    for refusal in everywhere(folder, tmp_path):
        assert "pickle" in refusal


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("exact", [True, False])
def test_a_weight_that_is_nan_is_named(
    name: str, exact: bool, folder: Path, tmp_path: Path
) -> None:
    broken = "decoder.block.0.layer.1.EncDecAttention.k.weight"

    def damage(weights: dict[str, torch.Tensor]) -> None:
        weights[broken][2, 3] = float("nan")

    change_weights(folder, damage)
    full, small = {"gguf": ("f32", "q8_0")}.get(name, ("float32", "int8"))
    with pytest.raises(ModelError, match=f"{broken} holds NaN") as caught:
        Publisher(SourceModel.open(folder)).publish(
            Target(name, full if exact else small), tmp_path / "out"
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=f"{broken} holds NaN"):
        load_pretrained(str(folder))


def test_a_missing_tokenizer_is_refused_and_may_be_another_folders(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, other / name)
    for refusal in everywhere(folder, tmp_path):
        assert "no tokenizer.json and no spiece.model" in refusal
        assert "--tokenizer" in refusal
    source = SourceModel.open(folder, tokenizer=other)
    exported = Publisher(source).publish(Target("onnx", "float32"), tmp_path / "out")
    with load(exported.folder) as model:
        assert model.tokenizer.pieces == 100
    assert len(load_pretrained(str(folder), tokenizer_folder=str(other)).tokenizer) == 100


TEXTS = (
    "plain text",
    "Zürich, 東京 🙂",
    " two  spaces\nand a\ttab ",
    "{<\\^~`}",
    "<extra_id_3> b",
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_bytes_needs_no_tokenizer_file(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    save_letter_model(folder, vocab_size=384)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    change_json(folder / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference(list(TEXTS))["input_ids"]
    for_training = load_tokenizer(str(folder))
    assert for_training(list(TEXTS))["input_ids"] == expected
    for_training.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(list(TEXTS))["input_ids"] == expected
    quantization = {"gguf": "f32"}.get(name, "float32")
    publisher = Publisher(SourceModel.open(folder))
    exported = publisher.publish(Target(name, quantization), tmp_path / "out")
    with load(exported.folder, trust_code=True) as model:
        assert model.tokenizer.encode(TEXTS) == expected
        assert model.tokenizer.decode(expected[:-1]) == list(TEXTS[:-1])
        assert model.generate(TEXTS[0], max_new_tokens=5).output_tokens == 5


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({}, 384),
        ({"extra_ids": 0}, 259),
        ({"extra_ids": 0, "additional_special_tokens": ["<y>"]}, 260),
        ({"eos_token": "<eos>", "pad_token": "<p>"}, 384),
    ],
)
def test_settings_of_a_tokenizer_of_bytes(
    settings: dict[str, Any], pieces: int, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    save_letter_model(folder, vocab_size=pieces)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    change_json(folder / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer", **settings)
    texts = [*TEXTS, "a <y> b", "x<eos>y </s> z"]
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference(texts)["input_ids"]
    for_training = load_tokenizer(str(folder))
    assert len(for_training) == len(reference) == pieces
    assert for_training(texts)["input_ids"] == expected
    with SourceModel.open(folder).tokenizer_folder() as exported:
        tokenizer = Tokenizer(exported / "tokenizer.json", eos=1)
        assert tokenizer.encode(texts) == expected
    assert SourceModel.open(folder).pieces == pieces


def test_added_tokens_of_bytes_with_gaps_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_letter_model(folder, vocab_size=400)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    change_json(folder / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer", extra_ids=0)
    change_json(folder / "added_tokens.json", **{"<y>": 390})
    with pytest.raises(ModelError, match="gives '<y>' the id 390, but 259 is the next"):
        load_tokenizer(str(folder))
    with pytest.raises(ModelError, match=r"Correct the added tokens in tokenizer_config\.json"):
        _ = SourceModel.open(folder).pieces


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_byte_order_mark_is_read_over(name: str, folder: Path, tmp_path: Path) -> None:
    """Windows editors write it; transformers itself can't read such files."""
    change_json(folder / "generation_config.json", max_new_tokens=7)
    expected = SourceModel.open(folder).architecture
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    trainable = load_pretrained(str(folder))
    assert trainable.model.generation_config.max_new_tokens == 7
    assert trainable.model.config.d_ff == expected.d_ff
    source = SourceModel.open(folder)
    assert source.architecture == expected
    exported = Publisher(source).publish(Target("onnx", "float32"), tmp_path / "out")
    assert exported.manifest.generation["max_new_tokens"] == 7


@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_save_model_are_read(tied: bool, tmp_path: Path) -> None:
    from transformers import T5ForConditionalGeneration

    folder = tmp_path / "model"
    source = save_letter_model(folder, tied=tied)
    expected = source.state_dict()
    model = T5ForConditionalGeneration.from_pretrained(folder)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    assert "shared.weight" not in load_file(folder / "model.safetensors")
    found = SourceModel.open(folder)
    assert found.architecture == source.architecture
    for name, weight in found.state_dict().items():
        assert np.array_equal(weight, expected[name]), name


def test_a_snapshot_of_the_hubs_cache_knows_its_name_and_commit(tmp_path: Path) -> None:
    commit = "0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab"
    folder = tmp_path / "models--google--flan-t5-small" / "snapshots" / commit
    save_letter_model(folder)
    source = SourceModel.open(folder)
    assert (source.name, source.revision) == ("google/flan-t5-small", commit)


def test_a_hub_id_may_have_no_owner(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    asked: list[str] = []

    def snapshot(repository: Repository, weights: bool) -> Path:
        asked.append(repository.name)
        commit = tmp_path / "models--t5-small" / "snapshots" / ("a" * 40)
        shutil.copytree(folder, commit)
        return commit

    monkeypatch.setattr("edge.train.model.local_folder._snapshot", snapshot)
    monkeypatch.chdir(tmp_path)
    source = SourceModel.open("t5-small")
    assert asked == ["t5-small"]
    assert (source.name, source.revision) == ("t5-small", "a" * 40)
    for wrong in ("./t5-small", "a/b/c", "~x"):
        with pytest.raises(ModelError, match="no such model folder"):
            SourceModel.open(wrong)


def test_a_tokenizer_is_not_made_up(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(str(folder))
