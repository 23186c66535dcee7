"""Adapters: trained, saved alone and merged; those of another base model refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge.runtime.errors import UsageError
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.trainer import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")
ModelFactory = Callable[..., Path]
ROWS = [{"input": f"what is the river {n}", "target": "a river"} for n in range(60)]
# Options of peft that are refused unless they are off.
_REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)


@pytest.fixture(scope="module")
def base(random_model: ModelFactory) -> Path:
    return random_model(tied=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def lora(rows: Path, base: Path, output: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "threads": 1}
    settings |= {"dev_ratio": 0.2, "method": "lora", "max_target_length": 12} | changes
    return TrainConfig(data=rows, output=output, model=str(base), **settings)


@pytest.fixture(scope="module")
def adapted(
    rows: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event]]:
    output = tmp_path_factory.mktemp("lora") / "model"
    events: list[Event] = []
    train(lora(rows, base, output), on_event=events.append)
    return output, events


def test_an_adapter_learns_and_is_small(adapted: tuple[Path, list[Event]]) -> None:
    output, events = adapted
    losses = [e.loss for e in events if e.message == "training" and e.loss is not None]
    assert losses[-1] < 0.5 * losses[0]
    start = next(e for e in events if e.kind == "start")
    assert start.details["lora_alpha / lora_rank"] == 4
    trained = int(str(start.details["trainable_parameters"]).split(" ")[0].replace(",", ""))
    weights = load_file(output / "adapter" / "adapter_model.safetensors")
    assert sum(w.numel() for w in weights.values()) == trained
    assert trained < 0.5 * int(str(start.details["parameters"]))
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in weights}
    assert layers == {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}


def test_the_output_is_a_plain_merged_model(adapted: tuple[Path, list[Event]], base: Path) -> None:
    merged = load_file(adapted[0] / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert merged.keys() == before.keys()
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert changed
    assert all(".block." in name for name in changed)
    configs = [json.loads((f / "config.json").read_text()) for f in (base, adapted[0])]
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        assert configs[0][name] == configs[1][name]
    record = json.loads((adapted[0] / "training.json").read_text())
    assert record["parameters"] == sum(w.numel() for w in merged.values())


def test_merge_gives_what_training_gave(
    adapted: tuple[Path, list[Event]], base: Path, tmp_path: Path, edge: Callable[..., Any]
) -> None:
    output = tmp_path / "merged"
    ended = edge("merge", base, adapted[0] / "adapter", "--output", output)
    assert ended.status == 0, ended
    ours, theirs = (load_file(f / "model.safetensors") for f in (output, adapted[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (output / "tokenizer.json").is_file()


def test_given_targets_only(rows: Path, base: Path, tmp_path: Path) -> None:
    train(lora(rows, base, tmp_path / "o", lora_targets=("q", "v"), epochs=1))
    weights = load_file(tmp_path / "o" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in weights} == {"q", "v"}
    with pytest.raises(UsageError, match=r"--lora-targets: unknown .*wi_2.*Did you mean 'wi_"):
        train(lora(rows, base, tmp_path / "p", lora_targets=("wi_2",), epochs=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o"]


def test_a_resumed_adapter_equals_an_uninterrupted_one(
    rows: Path, base: Path, adapted: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    def die(event: Event) -> None:
        if event.kind == "checkpoint":
            raise KeyboardInterrupt

    output = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        train(lora(rows, base, output, save_steps=4, eval_steps=0, epochs=2), on_event=die)
    with pytest.raises(UsageError, match="--lora-rank 8 where this run has 2"):
        train(lora(rows, base, output, resume=True, eval_steps=0, epochs=2, lora_rank=2))
    train(lora(rows, base, output, resume=True, eval_steps=0, epochs=2))
    whole = tmp_path / "whole"
    train(lora(rows, base, whole, eval_steps=0, epochs=2))
    one, two = (load_file(f / "model.safetensors") for f in (output, whole))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_adapters_that_do_not_fit_are_refused(
    adapted: tuple[Path, list[Event]],
    base: Path,
    random_model: ModelFactory,
    tmp_path: Path,
    assert_refused: Callable[..., str],
) -> None:
    adapter, output = tmp_path / "adapter", tmp_path / "out"

    def refused(model: Path = base) -> str:
        return assert_refused("merge", model, adapter, "--output", output)

    shutil.copytree(adapted[0] / "adapter", adapter)
    line = refused(random_model(d_model=32))
    assert "another base model" in line
    assert "64 features" in line
    assert "has no such layer" in refused(random_model(num_decoder_layers=1))
    weights = load_file(adapter / "adapter_model.safetensors")
    settings = json.loads((adapter / "adapter_config.json").read_text())

    save_file({**weights, "model.evil": torch.ones(1)}, adapter / "adapter_model.safetensors")
    assert "model.evil is not a weight of a LoRA adapter" in refused()
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "pickle" in refused()
    save_file(weights, adapter / "adapter_model.safetensors")
    for change, part in (
        ({"r": 5}, "have rank 8, but the configuration says 5"),
        ({"r": "x"}, "rank r is 'x'"),
        ({"peft_type": "IA3"}, "IA3 adapter"),
        ({"use_dora": True}, "use_dora"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps({**settings, **change}))
        assert part in refused()
    (adapter / "adapter_config.json").write_text("[]")
    assert "not an adapter's configuration" in refused()
    (adapter / "adapter_config.json").unlink()
    assert "adapter_config.json" in refused()
    assert not output.exists()


def test_what_needs_a_gpu_says_what_to_use_instead(rows: Path, base: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="needs a CUDA GPU.*use --method lora"):
        train(lora(rows, base, tmp_path / "o", method="qlora"))
    with pytest.raises(UsageError, match="needs a CUDA GPU.*--optimizer adafactor"):
        train(lora(rows, base, tmp_path / "o", optimizer="paged-adamw-8bit"))


def test_an_adapter_of_a_new_model_makes_no_sense(assert_refused: Callable[..., str]) -> None:
    line = assert_refused(
        "train", "d", "--output", "o", "--from-scratch", "tiny", "--preset", "quick"
    )
    assert "--method lora adapts a trained model" in line


def test_every_option_of_peft_is_honored_refused_or_without_effect() -> None:
    import dataclasses

    from peft import LoraConfig

    from edge.train.model.adapter_config import HONORED, IMPLIED, WITHOUT_EFFECT

    groups = (*HONORED, *IMPLIED, *_REFUSED, *WITHOUT_EFFECT)
    assert len(groups) == len({*groups})
    assert {field.name for field in dataclasses.fields(LoraConfig)} <= {*groups}


@pytest.mark.parametrize("start", ["pissa", "olora", "gaussian", True])
def test_an_untrained_adapter_merges_to_its_base(start: Any, base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import T5ForConditionalGeneration

    from edge.train.model.lora import merge

    model = T5ForConditionalGeneration.from_pretrained(base)
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = LoraConfig(r=4, target_modules=["q", "v"], init_lora_weights=start)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    merge(str(base), tmp_path / "adapter", tmp_path / "merged")
    for name, weight in load_file(tmp_path / "merged" / "model.safetensors").items():
        assert torch.allclose(weight, expected[name], atol=1e-5), name


@pytest.mark.parametrize("start", ["corda", "lora_ga", "loftq", "pissa_niter_4", "new"])
def test_a_start_that_cannot_be_repeated_is_refused(
    start: str, base: Path, tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "init_lora_weights": start})
    )
    line = assert_refused("merge", base, tmp_path, "--output", tmp_path / "merged")
    assert f"init_lora_weights {start!r}" in line
