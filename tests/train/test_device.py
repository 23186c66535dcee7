"""Device and precision: bf16 only where the hardware has it, and what MPS needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edge.runtime.errors import UsageError
from edge.train import evaluate as evaluation
from edge.train.config import TrainConfig
from edge.train.data import IGNORED_LABEL, Collator, Pair, tokenize
from edge.train.device import (
    DeviceConfig,
    choose_device,
    has_fast_bf16,
    padding_multiple,
    release_memory_per_shape,
)
from edge.train.loop.hf_trainer import trainer_arguments
from edge.train.model.opening import open_model
from edge.train.presets import build_config
from samples import save_letter_model

NEEDED = {"data": "d", "output": "o", "model": "m"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let torch report a GPU of a compute capability, which says of itself that it has bf16."""

    def report(name: str, capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    return report


def test_a_t4_never_computes_in_bf16(gpu: Any) -> None:
    gpu("Tesla T4", (7, 5))
    assert not has_fast_bf16("cuda")
    assert choose_device("auto", "auto") == DeviceConfig("cuda", "fp32")
    config = build_config(NEEDED, names=["colab-t4"])
    assert choose_device(config.device, config.precision) == DeviceConfig("cuda", "fp32")
    with pytest.raises(UsageError, match=r"Tesla T4 \(compute capability 7.5\) only emulates bf16"):
        choose_device("cuda", "bf16")


def test_an_ampere_gpu_computes_in_bf16(gpu: Any) -> None:
    gpu("NVIDIA A100", (8, 0))
    assert choose_device("auto", "auto") == DeviceConfig("cuda", "bf16")
    config = build_config(NEEDED, names=["colab-t4"])
    assert choose_device(config.device, config.precision).precision == "fp32"


@pytest.mark.parametrize("is_new", [True, False])
def test_mps_computes_in_bf16_from_macos_14(monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: is_new)
    config = build_config(NEEDED, names=["mac-mps"])
    chosen = choose_device(config.device, config.precision)
    assert chosen == DeviceConfig("mps", "bf16" if is_new else "fp32")


def test_mps_gets_a_fused_optimizer_and_an_empty_cache(tmp_path: Path) -> None:
    config, _ = TrainConfig("d", tmp_path, model="m").resolved().for_rows(100)
    on_mps = trainer_arguments(config, DeviceConfig("mps", "bf16"), 10, 1, tmp_path)
    assert on_mps.optim == "adamw_torch_fused"
    assert on_mps.torch_empty_cache_steps == 1
    on_cpu = trainer_arguments(config, DeviceConfig("cpu", "fp32"), 10, 1, tmp_path)
    assert on_cpu.torch_empty_cache_steps is None


def test_mps_releases_its_cache_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append("mps"))
    release_memory_per_shape("cpu")
    release_memory_per_shape("cuda")
    assert released == []
    release_memory_per_shape("mps")
    assert released == ["mps"]


def test_an_evaluation_releases_what_its_batches_leave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    after: list[str] = []
    monkeypatch.setattr(evaluation, "release_memory_per_shape", after.append)
    save_letter_model(tmp_path)
    config, _ = TrainConfig("d", tmp_path, model=str(tmp_path)).resolved().for_rows(5)
    trainable = open_model(config, [], tmp_path)
    pairs = [Pair("abc", "ab")] * 5
    lengths = {"max_source_length": 16, "max_target_length": 8}
    rows, _ = tokenize(pairs, trainable.tokenizer, name="dev", **lengths)
    options = evaluation.EvaluationOptions(batch_size=2)
    evaluation.evaluation_loss(trainable.model, trainable.tokenizer, rows, options=options)
    assert after == ["cpu"] * 3


class _Tokenizer:
    pad_token_id = 0


def test_mps_gets_few_widths() -> None:
    rows = [{"input_ids": [5] * 17 + [1], "labels": [6, 1]}, {"input_ids": [1], "labels": [1]}]
    tokenizer: Any = _Tokenizer()
    assert padding_multiple("cuda") == padding_multiple("cpu") == 1
    batch = Collator(tokenizer, multiple=padding_multiple("mps"))(rows)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 32)
    assert batch["labels"].shape == (2, 16)
    assert batch["attention_mask"].sum() == 19
    assert (batch["labels"] == IGNORED_LABEL).sum() == 2 * 16 - 3
    assert Collator(tokenizer)(rows)["input_ids"].shape == (2, 18)
