"""Which models can be loaded, and what loading and saving keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.runtime.errors import ModelError
from edge.train.model.loading import load_pretrained, parameter_count

ModelFactory = Callable[..., Path]


def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids).logits


def test_another_family_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is a bert model.*t5, mt5"):
        load_pretrained(str(tmp_path))


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_pretrained(str(tmp_path))


def test_a_pickle_is_not_opened(random_model: ModelFactory, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model(), folder)
    state = load_pretrained(str(folder)).model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_pretrained(str(folder))


def test_damaged_and_incomplete_weights(random_model: ModelFactory, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(random_model(), folder)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    state.pop("encoder.block.1.layer.0.SelfAttention.q.weight")
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack encoder\.block\.1\.layer\.0\.SelfAttention\.q"):
        load_pretrained(str(folder))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        load_pretrained(str(folder))


def test_a_tokenizer_that_does_not_belong(random_model: ModelFactory) -> None:
    with pytest.raises(ModelError, match="don't belong together"):
        load_pretrained(str(random_model(vocab_size=100)))


@pytest.mark.parametrize("written_by", [4, 5])
@pytest.mark.parametrize("tied", [True, False])
def test_head_and_scaling_survive(
    random_model: ModelFactory, tmp_path: Path, tied: bool, written_by: int
) -> None:
    folder = random_model(tied=tied, written_by=written_by)
    model = load_pretrained(str(folder)).model
    assert model.config.scale_decoder_outputs is tied
    assert (model.lm_head.weight is model.shared.weight) is tied
    model.save_pretrained(tmp_path / "again")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / file, tmp_path / "again")
    again = load_pretrained(str(tmp_path / "again")).model
    assert torch.equal(_logits(model), _logits(again))
    assert again.config.scale_decoder_outputs is tied


def test_dropout_can_be_set(random_model: ModelFactory) -> None:
    model = load_pretrained(str(random_model()), dropout=0.25).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25}
    assert parameter_count(model) > 0


def test_the_shared_model_loads(shared: Path) -> None:
    loaded = load_pretrained(str(shared / "models" / "disfl-tiny"))
    assert round(parameter_count(loaded.model) / 1e6, 2) == 1.78
    config = json.loads((shared / "models" / "disfl-tiny" / "config.json").read_text())
    assert loaded.model.config.num_decoder_layers == config["num_decoder_layers"]
