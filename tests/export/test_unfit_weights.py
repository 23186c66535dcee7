"""Weights that do not fit the config.json: export, train and check refuse with the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge.export.source import SourceModel
from edge.runtime.errors import ModelError
from edge.train.config import TrainConfig
from edge.train.model.loading import load_pretrained
from edge.train.preflight import preflight
from samples import save_letter_model

Weights = dict[str, torch.Tensor]
NORM = "encoder.final_layer_norm.weight"
Q = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_letter_model(tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path, tmp_path: Path) -> str:
    """What export says, after a check that train and `edge check` say the same."""
    with pytest.raises(ModelError) as caught:
        SourceModel.open(folder)
    message = str(caught.value)
    assert "\n" not in message
    with pytest.raises(ModelError) as caught:
        load_pretrained(str(folder))
    assert str(caught.value) == message
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "ab", "target": "cd"}\n' * 3, encoding="utf-8")
    config = TrainConfig(data=rows, output=tmp_path / "o", model=str(folder), dev_ratio=0.5)
    assert message in [c.detail for c in preflight(config) if c.status == "failed"]
    return message


def change_weights(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(old | values), encoding="utf-8")


def split(folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> None:
    """Split the weights in two files, with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map = {}
    for number, half in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in half}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(half, file)
    index = {"metadata": {}, "weight_map": weight_map}
    if change is not None:
        change(index)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "transformer."])
def test_names_with_a_prefix(prefix: str, folder: Path, tmp_path: Path) -> None:
    change_weights(folder, lambda ws: {prefix + name: w for name, w in ws.items()})
    assert f"they have {prefix}shared.weight instead" in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda ws: {n: w for n, w in ws.items() if n != NORM}, f"the weights lack {NORM}"),
        (lambda ws: ws | {NORM: ws[NORM][:0]}, f"{NORM} has the shape (0,), config.json asks for"),
        (lambda ws: {"foo": ws[NORM]}, "the weights lack shared.weight; not a T5 model"),
        (
            lambda ws: ws | {"decoder.embed_tokens.weight": ws["shared.weight"].flip(0)},
            "decoder.embed_tokens.weight differs from shared.weight",
        ),
        (
            lambda ws: ws | {"encoder.embed_tokens.weight": ws["shared.weight"][1:].clone()},
            "encoder.embed_tokens.weight differs from shared.weight",
        ),
    ],
)
def test_weights(change: Any, complaint: str, folder: Path, tmp_path: Path) -> None:
    change_weights(folder, change)
    assert complaint in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"num_heads": 2}, "(32, 3), config.json asks for (32, 2)"),
        ({"vocab_size": 161}, "shared.weight has the shape (160, 64), config.json asks for (161"),
        ({"d_ff": 80}, "wi_0.weight has the shape (96, 64), config.json asks for (80, 64)"),
        ({"num_decoder_layers": None}, "the weights lack decoder.block.1"),
        ({"d_kv": None}, "config.json: d_kv is None"),
        ({"decoder_start_token_id": 999}, "decoder_start_token_id is 999, not an id below 160"),
    ],
)
def test_configs(values: Any, complaint: str, folder: Path, tmp_path: Path) -> None:
    change_json(folder / "config.json", **values)
    assert complaint in refusal(folder, tmp_path)


@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id", "decoder_start_token_id"])
def test_special_tokens_of_the_generation_config(name: str, folder: Path, tmp_path: Path) -> None:
    change_json(folder / "generation_config.json", **{name: 999})
    assert "generation_config.json" in refusal(folder, tmp_path)
    assert f"{name} " in refusal(folder, tmp_path)


def _map_all_to_the_first(index: dict[str, Any]) -> None:
    index["weight_map"] = dict.fromkeys(index["weight_map"], "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_map_all_to_the_first, "in model-00001-of-00002.safetensors, which lacks it"),
        (lambda i: i.pop("weight_map"), "model.safetensors.index.json: has no weight_map"),
        (
            lambda i: i["weight_map"].update({NORM: "../base/model.safetensors"}),
            "names files outside of the folder",
        ),
        (
            lambda i: i["weight_map"].update({NORM: "model-00003-of-00003.safetensors"}),
            "model-00003-of-00003.safetensors is missing; was the download interrupted?",
        ),
    ],
)
def test_indices(change: Any, complaint: str, folder: Path, tmp_path: Path) -> None:
    split(folder, change)
    assert complaint in refusal(folder, tmp_path)


def test_an_index_may_list_copies_that_are_not_stored(folder: Path) -> None:
    file = "model-00001-of-00002.safetensors"
    split(folder, lambda i: i["weight_map"].update({"decoder.embed_tokens.weight": file}))
    assert SourceModel.open(folder).architecture.tied_head


def test_parts_without_an_index(folder: Path, tmp_path: Path) -> None:
    split(folder)
    assert SourceModel.open(folder).weights_sha256
    (folder / "model.safetensors.index.json").unlink()
    found = refusal(folder, tmp_path)
    assert "model-00001-of-00002.safetensors is a part of the weights" in found
    assert "model.safetensors.index.json, which lists all parts, is missing" in found


def test_weights_under_another_name(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert "Rename model.fp16.safetensors to it" in refusal(folder, tmp_path)


def test_an_equal_copy_of_the_embedding_is_no_difference(folder: Path) -> None:
    name = "decoder.embed_tokens.weight"
    change_weights(folder, lambda ws: ws | {name: ws["shared.weight"].clone()})
    assert SourceModel.open(folder).architecture.tied_head
    assert load_pretrained(str(folder))


@pytest.mark.parametrize(
    "values",
    [
        {"dense_act_fn": "relu"},
        {"dense_act_fn": "silu", "is_gated_act": True, "feed_forward_proj": "relu"},
    ],
)
def test_the_activation_is_that_of_transformers(values: dict[str, Any], folder: Path) -> None:
    """config.json's dense_act_fn and is_gated_act come before its feed_forward_proj."""
    change_json(folder / "config.json", **values)
    source = SourceModel.open(folder)
    assert source.architecture.dense_act_fn == values["dense_act_fn"]
    config: Any = source.torch_model.config
    assert config.dense_act_fn == source.architecture.dense_act_fn
    assert config.is_gated_act is source.architecture.is_gated_act is True


def test_an_adapter_beside_a_model(folder: Path, tmp_path: Path) -> None:
    change = {"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"}
    (folder / "adapter_config.json").write_text(json.dumps(change), encoding="utf-8")
    found = refusal(folder, tmp_path)
    assert "holds an adapter (adapter_config.json) beside a model" in found
    assert f"edge merge google/flan-t5-small {folder} --output MERGED" in found


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "spiece.model"])
def test_pointers_of_git_lfs(name: str, folder: Path, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / name).write_text(pointer, encoding="utf-8")
    found = refusal(folder, tmp_path)
    assert f"{folder / name}: is a pointer of Git LFS" in found
    assert "git lfs pull" in found


def test_a_tokenizer_without_a_piece_for_unknown_characters(folder: Path, tmp_path: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["unk_id"] = None
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json: unk_id is null"), ExitStack() as stack:
        stack.enter_context(SourceModel.open(folder).tokenizer_folder())
    with pytest.raises(ModelError, match="unk_id is null"):
        load_pretrained(str(folder))
