"""Layers of configuration: presets, files, command line; all mistakes reported together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import UsageError
from edge.train.presets import build_config, coerce, presets

NEEDED = {"data": "d", "output": "o", "model": "m"}


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_a_valid_run(name: str) -> None:
    brings_its_model = "from_scratch" in presets()[name].fields
    given = {key: NEEDED[key] for key in NEEDED if not (brings_its_model and key == "model")}
    config = build_config(given, names=[name])
    for field, value in presets()[name].fields.items():
        assert getattr(config, field) == value


def test_the_figures_of_the_aims() -> None:
    quick = build_config(NEEDED, names=["quick"])
    assert (quick.method, quick.lora_rank, quick.lora_alpha) == ("lora", 4, 16)
    assert (quick.epochs, quick.batch_size, quick.learning_rate) == (3, 4, 2e-4)
    assert quick.max_source_length == 256
    quality = build_config(NEEDED, names=["quality"])
    assert (quality.lora_rank, quality.lora_alpha, quality.learning_rate) == (16, 64, 1e-4)
    low = build_config(NEEDED, names=["low-memory"])
    assert low.batch_size == 2
    assert low.gradient_accumulation > 1
    assert low.gradient_checkpointing


def test_later_layers_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("batch-size: 5\nlearning_rate: 2e-5\n")  # YAML 1.1: 2e-5 is a text
    second.write_text("batch_size: 6\nlora_targets: [q, v]\nlong: drop\ntokens_per_step: 900\n")
    names = ["cpu", "quick"]
    assert build_config(NEEDED, names=names).batch_size == 4
    assert build_config(NEEDED, names=names[::-1]).batch_size == 8
    config = build_config(NEEDED, names=names, files=[first, second])
    assert (config.batch_size, config.learning_rate) == (6, 2e-5)
    assert config.lora_targets == ("q", "v")
    assert config.device == "cpu"
    assert (config.long, config.tokens_per_step) == ("drop", 900)
    assert config.tokens_per_batch == 450  # of two in a step, says the preset cpu
    given = {**NEEDED, "batch_size": "7"}
    assert build_config(given, names=names, files=[first, second]).batch_size == 7


def test_all_mistakes_in_all_layers_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rte: 1\nbatch_size: many\ntensorboard: 3\npatience: null\n")
    with pytest.raises(UsageError) as caught:
        build_config({"model": "m", "epochs": "x", "device": "tpu"}, names=["quik"], files=[path])
    for part in (
        "unknown preset 'quik'. Did you mean 'quick'?",
        "mine.yaml: unknown key 'learning_rte'. Did you mean 'learning_rate'?",
        "mine.yaml: batch_size 'many': must be an integer",
        "mine.yaml: tensorboard 3: must be true or false",
        "mine.yaml: patience None: must have a value",
        "--epochs 'x': must be a number",
        "--device 'tpu': choose from",
        "DATA is missing",
        "--output is missing",
    ):
        assert part in str(caught.value)


# 10^9 texts, if it is written out.
_BOMB = "a0: &a0 [lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
_BOMB += "batch_size: *a9\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1\n", r"mine.yaml:\d: not valid YAML"),
        ("- 1\n", "lines of `name: value`"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        (f"batch_size: {'9' * 5000}\n", "not valid YAML"),
        (f"batch_size: 0x{'f' * 5000}\n", "batch_size an integer of 20000 bits: must be less than"),
        (f"learning_rate: {'9' * 400}\n", "learning_rate an integer of .* bits: must be a number"),
        (f"time_limit: {'9' * 400}\n", "time_limit an integer of .* bits: must be a duration"),
        (_BOMB, "batch_size .*must be an integer"),
    ],
)
def test_a_broken_file_is_reported(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=part) as caught:
        build_config(NEEDED, files=[path])
    assert len(str(caught.value)) < 20_000
    with pytest.raises(UsageError, match="can't be read"):
        build_config(NEEDED, files=[tmp_path / "none.yaml"])


def test_values_take_their_fields_type() -> None:
    assert coerce("epochs", 3) == 3.0
    assert coerce("lora_targets", "q, v") == ("q", "v")
    assert coerce("time_limit", "30m") == "30m"
    assert coerce("epochs", None) is None
    with pytest.raises(ValueError, match="integer"):
        coerce("batch_size", True)


def test_the_command_lists_and_shows(
    edge: Callable[..., Any], assert_refused: Callable[..., str]
) -> None:
    listed = edge("presets").out
    for name in ("cpu", "mac-mps", "colab-t4", "cuda", "quick", "balanced", "quality"):
        assert name in listed
    assert "lora_rank" in edge("presets", "low-memory").out
    assert "Did you mean 'quality'" in assert_refused("presets", "qualty")
    line = assert_refused("train", "--preset", "quick", "--batch-size", "many", "--dropout", 2)
    for part in ("--batch-size 'many'", "--dropout 2.0", "DATA is missing", "--output is missing"):
        assert part in line
