"""Files of adapters for `edge merge`: what would spoil the model is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], Any]


@pytest.fixture(scope="module")
def base(random_model: Callable[..., Path]) -> Path:
    return random_model(tied=False)


LAYER = "encoder.block.0.layer.0.SelfAttention.q"


def _adapter(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], **settings: Any
) -> Path:
    """An adapter of rank 8 of one layer, with changed tensors and settings."""
    folder.mkdir()
    weights = {
        f"base_model.model.{LAYER}.lora_A.weight": torch.ones(8, 64),
        f"base_model.model.{LAYER}.lora_B.weight": torch.ones(64, 8),
    }
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def _fill(part: str, value: float) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[f"base_model.model.{LAYER}.{part}.weight"].fill_(value)

    return change


def _integers(weights: dict[str, torch.Tensor]) -> None:
    name = f"base_model.model.{LAYER}.lora_A.weight"
    weights[name] = weights[name].to(torch.int32)


def _long_name(weights: dict[str, torch.Tensor]) -> None:
    weights["x" * 100_000] = torch.ones(1)


def _renamed(old: str, new: str) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[name.replace(old, new)] = weights.pop(name)

    return change


def _same(weights: dict[str, torch.Tensor]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "settings", "part"),
    [
        (_fill("lora_B", float("nan")), {}, "lora_B.weight holds NaN"),
        (_fill("lora_B", 3e38), {}, f"{LAYER}.weight holds NaN or infinite values"),
        (_integers, {}, "lora_A.weight is stored as int32"),
        (_long_name, {}, "xxx is not a weight of a LoRA adapter"),
        (_renamed("base_model.model.", ""), {}, "lacks the prefix base_model.model."),
        (_renamed(f"{LAYER}.lora_B", "lm_head.base_layer"), {}, "adapts lm_head; only adapters of"),
        (_renamed("lora_A.weight", "lora_embedding_A"), {}, f"adapts {LAYER}; only adapters of"),
        (dict.clear, {}, "no weights in adapter_model.safetensors"),
        (_same, {"lora_alpha": float("nan")}, "lora_alpha is nan"),
        (_same, {"lora_alpha": 1e308}, "lora_alpha is 1e+308"),
        (_same, {"lora_alpha": 10**400}, "lora_alpha is 1000"),
        (_same, {"lora_alpha": None}, "lora_alpha is null"),
        (_same, {"lora_alpha": 0}, "lora_alpha is 0"),
        (_same, {"lora_alpha": True}, "lora_alpha is True"),
        (_same, {"alpha_pattern": {"q": float("nan")}}, "alpha_pattern of q is nan"),
        (_same, {"rank_pattern": ["q"]}, "rank_pattern must be an object"),
        (_same, {"rank_pattern": {"q": "8"}}, "rank_pattern of q is '8'"),
        (_same, {"rank_pattern": {"(": 8}}, "not a regular expression"),
        (_same, {"rank_pattern": {"((.|.)*)*Z": 8}}, "too complex a regular expression"),
        (_same, {"rank_pattern": {".?" * 66 + "Q": 8}}, "too complex a regular expression"),
        (_same, {"rank_pattern": {".*.*.*.*Q": 8}}, "too complex a regular expression"),
        (
            _same,
            {"rank_pattern": {f".*.*.*Q{n}": 8 for n in range(100)}},
            "too complex a regular expression",
        ),
        (_same, {"rank_pattern": {".*q": 4}}, "have rank 8, but the configuration says 4"),
        (_same, {"use_rslora": "yes"}, "use_rslora must be true or false"),
    ],
)
def test_adapters_that_would_spoil_the_model_are_refused(
    change: Change,
    settings: dict[str, Any],
    part: str,
    base: Path,
    tmp_path: Path,
    assert_refused: Callable[..., str],
) -> None:
    adapter = _adapter(tmp_path / "adapter", change, **settings)
    line = assert_refused("merge", base, adapter, "--output", tmp_path / "out")
    assert part in line
    assert len(line) < 1000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\x00\x01", b"[" * 5000, b"[]"])
def test_an_unreadable_configuration_says_why(
    content: bytes, base: Path, tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    adapter = _adapter(tmp_path / "adapter", _same)
    (adapter / "adapter_config.json").write_bytes(content)
    line = assert_refused("merge", base, adapter, "--output", tmp_path / "out")
    assert "not an adapter's configuration (not " in line


def test_scales_and_ranks_are_those_of_the_configuration(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A negative alpha subtracts the adapter, as in peft; nothing is printed."""
    from edge.train.model.lora import merge

    before = load_file(base / "model.safetensors")[f"{LAYER}.weight"]
    for number, (settings, change) in enumerate(
        (
            ({"lora_alpha": -4, "fan_in_fan_out": True, "lora_dropout": "x"}, -4.0),
            ({"r": 2, "rank_pattern": {".*SelfAtt.*q": 8}, "alpha_pattern": {"q": 24}}, 24.0),
        )
    ):
        adapter = _adapter(tmp_path / f"adapter{number}", _same, **settings)
        merge(str(base), adapter, tmp_path / f"out{number}")
        merged = load_file(tmp_path / f"out{number}" / "model.safetensors")[f"{LAYER}.weight"]
        assert torch.allclose(merged - before, torch.tensor(change), atol=1e-4)
    assert "UserWarning" not in capfd.readouterr().err


def test_an_adapter_of_a_head_that_is_the_embedding(
    random_model: Callable[..., Path], tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    """Merged, it would change the embedding as well."""
    adapter = _adapter(tmp_path / "adapter", _renamed(LAYER, "lm_head"))
    line = assert_refused("merge", random_model(), adapter, "--output", tmp_path / "out")
    assert "adapts lm_head; only adapters of linear layers" in line


def test_a_folder_of_named_adapters_lists_them(
    base: Path, tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    (tmp_path / "adapters").mkdir()
    for name in ("one", "two"):
        _adapter(tmp_path / "adapters" / name, _same)
    line = assert_refused("merge", base, tmp_path / "adapters", "--output", tmp_path / "out")
    assert "it has no adapter_config.json. Name one of its adapters: one, two" in line


def test_a_byte_order_mark_before_the_configuration(base: Path, tmp_path: Path) -> None:
    from edge.train.model.lora import merge

    adapter = _adapter(tmp_path / "adapter", _same)
    path = adapter / "adapter_config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert merge(str(base), adapter, tmp_path / "out") == 2 * 8 * 64
