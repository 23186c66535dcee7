"""Model folders with numbers, types and names that no model has: one sentence, before any work."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.options import ExportOptions
from edge.export.publish import Publisher
from edge.export.source import SourceModel
from edge.runtime.errors import EdgeError, ModelError
from edge.train.model.loading import load_pretrained

Factory = Callable[..., Path]


@pytest.fixture(scope="module")
def model(random_model: Factory) -> Path:
    return random_model()


@pytest.fixture
def changed(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a model folder with values of a JSON file replaced."""

    def change(file: str, **values: Any) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(model, folder)
        path = folder / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **values}))
        return folder

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_layers", 10**7),
        ("num_layers", 1000),
        ("num_decoder_layers", 1000),
        ("relative_attention_max_distance", 2**24),
        ("vocab_size", 3 * 10**7),
        ("vocab_size", 4_000_000),
        ("d_model", 2**63),
        ("d_ff", -1),
        ("d_kv", 1.5),
        ("num_heads", "x" * 100_000),
    ],
)
def test_dimensions(changed: Callable[..., Path], name: str, value: object) -> None:
    folder = changed("config.json", **{name: value})
    started = time.monotonic()
    for use in (SourceModel.open, lambda path: load_pretrained(str(path))):
        with pytest.raises(ModelError) as caught:
            use(folder)
        assert str(folder) in str(caught.value)
        assert len(str(caught.value)) < 600
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("value", [0, -1, 2, "1e-6", None, [1]])
def test_epsilon(changed: Callable[..., Path], value: object) -> None:
    with pytest.raises(ModelError, match=r"config\.json: layer_norm_epsilon"):
        SourceModel.open(changed("config.json", layer_norm_epsilon=value))


@pytest.mark.parametrize(
    "values", [{"dtype": "float1024"}, {"dropout_rate": "x"}, {"torch_dtype": [1]}]
)
def test_what_transformers_rejects(changed: Callable[..., Path], values: dict[str, Any]) -> None:
    folder = changed("config.json", **values)
    for use in (lambda: SourceModel.open(folder).torch_model, lambda: load_pretrained(str(folder))):
        message = reason_of(use)
        assert message is None or (str(folder) in message and "\n" not in message)


def reason_of(use: Callable[[], object]) -> str | None:
    """The message of its EdgeError, or None; transformers ignores some malformed values."""
    try:
        use()
    except EdgeError as error:
        return str(error)
    return None


def test_index_of_weights(changed: Callable[..., Path]) -> None:
    folder = changed("model.safetensors.index.json", weight_map=["model.safetensors"])
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ModelError, match="weight_map must be a JSON object"):
        SourceModel.open(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x" * 5000 + ".safetensors"}}))
    with pytest.raises(ModelError, match="names files outside of the folder"):
        SourceModel.open(folder)


def test_lengths_of_training_and_generation(changed: Callable[..., Path]) -> None:
    folder = changed("training.json", max_source_length=2**62, max_target_length=2**62)
    publisher = Publisher(SourceModel.open(folder))
    assert publisher.limits.max_input_tokens == 512
    (folder / "generation_config.json").write_text('{"max_new_tokens": "many"}')
    with pytest.raises(EdgeError, match=r"generation_config\.json: max_new_tokens"):
        Publisher(SourceModel.open(folder))
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(EdgeError, match="stop_strings"):
        Publisher(SourceModel.open(folder), ExportOptions(generation={"stop": 3}))
