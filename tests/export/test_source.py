"""Reading model folders of transformers 4 and 5, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.source import SourceModel
from edge.runtime.errors import ModelError

ModelFactory = Callable[..., Path]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [4, 5])
def test_tying_and_scaling_of_the_head(
    random_model: ModelFactory, tied: bool, version: int
) -> None:
    folder = random_model(tied=tied, written_by=version)
    shape = SourceModel.open(folder).architecture
    assert shape.tied_head is tied
    assert shape.scale_decoder_outputs is tied


def test_a_config_of_version_4_may_leave_tying_out(random_model: ModelFactory) -> None:
    folder = random_model(tied=True, written_by=4)
    edit(folder, lambda c: c.pop("tie_word_embeddings"))
    assert SourceModel.open(folder).architecture.scale_decoder_outputs


@pytest.fixture
def folder(random_model: ModelFactory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model(), tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.update(model_type="bart"), "'bart', not a T5-family model"),
        (
            lambda c: c.update(feed_forward_proj="gated-swish") or c.pop("dense_act_fn"),
            "feed_forward_proj 'gated-swish' is not supported",
        ),
        (lambda c: c.update(feed_forward_proj="a-gelu"), "feed_forward_proj 'a-gelu' is not"),
        (lambda c: c.update(feed_forward_proj=None), "feed_forward_proj None is not supported"),
        (lambda c: c.update(dense_act_fn="tanh"), "dense_act_fn 'tanh' is not supported"),
        (lambda c: c.update(dense_act_fn=None), "dense_act_fn None is not supported"),
        (lambda c: c.update(is_gated_act=None), "is_gated_act is None, not true or false"),
        (lambda c: c.update(d_kv=None), "config.json: d_kv is None, not a whole number"),
        (lambda c: c.update(d_model=96), "config.json asks for"),
        (lambda c: c.update(num_layers=3), "the weights lack encoder.block.2"),
        (lambda c: c.update(num_heads=0), "num_heads is 0"),
        (lambda c: c.update(d_ff="big"), "d_ff is 'big'"),
        (lambda c: c.update(eos_token_id=9999), "eos_token_id is 9999"),
    ],
)
def test_an_unusable_model_is_refused(folder: Path, change: Any, complaint: str) -> None:
    edit(folder, change)
    with pytest.raises(ModelError) as caught:
        SourceModel.open(folder)
    assert complaint in str(caught.value)


def test_another_attention_under_t5s_name(folder: Path) -> None:
    """umT5 has a position bias in every layer; transformers' T5 would ignore it silently."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    bias = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    name = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    save_file({**weights, name: bias.clone()}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"block\.1\..* is not a weight of T5.*umT5"):
        SourceModel.open(folder)


def test_pickle_is_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle, which is never loaded"):
        SourceModel.open(folder)


def test_a_truncated_weights_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        SourceModel.open(folder)


def test_an_index_can_not_point_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"shared.weight": "../../x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside of the folder"):
        SourceModel.open(folder)


def test_a_missing_folder_and_one_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        SourceModel.open(tmp_path / "none")
    with pytest.raises(ModelError, match="no complete copy in the cache"):
        SourceModel.open("google/no-such-model")
    with pytest.raises(ModelError, match=r"no config\.json"):
        SourceModel.open(tmp_path)


def test_a_tokenizer_that_does_not_belong(folder: Path, trained: Path) -> None:
    """More tokens than the model has ids."""
    from edge.export.publish import Publisher, plan_targets

    shutil.copy(trained / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ModelError, match="do not belong together"):
        Publisher(SourceModel.open(folder)).publish(
            plan_targets("onnx", ("none",))[0], folder.parent / "out"
        )
    assert not (folder.parent / "out").exists()
