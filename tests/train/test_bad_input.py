"""Failures of a training run: one line that says where and why."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.runtime.errors import EdgeError
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.loop.divergence import DivergenceDetector
from edge.train.run_folder import run_folder
from edge.train.trainer import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

WriteRows = Callable[[str, Iterable[object]], Path]
ModelFactory = Callable[..., Path]
ROWS = [{"input": f"what uh is river {n}?", "target": f"what is river {n}?"} for n in range(40)]
SCRATCH = (
    *("--from-scratch", "tiny", "--vocab-size", 120, "--epochs", 2, "--threads", 1),
    *("--dev-ratio", 0.1, "--max-target-length", 24, "--no-check"),
)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_a_diverged_run_says_step_and_cause(
    edge: Callable[..., Any], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, output = write_rows("rows.jsonl", ROWS), tmp_path / "out"
    ended = edge(
        "train", data, *SCRATCH, "--output", output, "--learning-rate", 1, "--weight-decay", 1e30,
        "--max-grad-norm", 1e30,
    )  # fmt: skip
    assert ended.status == 1
    line = last_line(ended.err)
    assert line.startswith("edge: training diverged: the loss ")
    assert " step " in line
    assert "try a lower --learning-rate (it was " in line
    assert not output.exists()
    assert not run_folder(output).exists()


def test_an_explosion_is_told_from_a_bad_start() -> None:
    model = torch.nn.Linear(2, 2)
    detector = DivergenceDetector(model, 100, "fp32")  # random guessing: 4.6
    detector.check(1, 30.0, 30.0, 1e-3)  # a bad start is none
    detector.check(10, 2.0, 2.0, 1e-3)
    detector.check(20, 9.0, 9.0, 1e-3)
    with pytest.raises(EdgeError, match=r"rose to 9\.4 by step 30, above the 4\.6 of random"):
        detector.check(30, 12.0, 9.4, 1e-3)


def test_the_cause_of_a_nan_is_looked_for() -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(EdgeError, match=r"nan at step 7; all weights are finite.*--precision fp32"):
        DivergenceDetector(model, 100, "bf16").check(7, math.nan, math.nan, 1e-3)
    with pytest.raises(EdgeError, match="activations overflowed"):
        DivergenceDetector(model, 100, "fp32").check(7, math.inf, math.inf, 1e-3)
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    with pytest.raises(EdgeError, match=r"weights became infinite.*0\.001 at that step"):
        DivergenceDetector(model, 100, "bf16").check(7, math.nan, math.nan, 1e-3)


def test_a_wrong_key_is_one_line_with_what_was_meant(
    assert_refused: Callable[..., str], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, config = write_rows("rows.jsonl", ROWS), tmp_path / "mine.yaml"
    config.write_text("learning_rte: 1e-4\nbatch-sise: 8\nepochs: many\n")
    for command in ("train", "check"):
        line = assert_refused(
            command, data, "--model", "m", "--output", tmp_path / "out", "--config", config
        )
        assert "mine.yaml: unknown key 'learning_rte'. Did you mean 'learning_rate'?" in line
        assert "unknown key 'batch-sise'. Did you mean 'batch_size'?" in line
        assert "mine.yaml: epochs 'many': must be a number" in line


def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(
    assert_refused: Callable[..., str],
    random_model: ModelFactory,
    write_rows: WriteRows,
    tmp_path: Path,
) -> None:
    """A run that died after its first checkpoint is resumed with something else."""
    data, output = write_rows("rows.jsonl", ROWS), tmp_path / "out"
    first, other = random_model(), random_model(seed=5)
    spelled = tmp_path / "spelled"  # the same weights, other pieces
    shutil.copytree(first, spelled)
    content = json.loads((spelled / "tokenizer.json").read_text())
    pieces = content["model"]["vocab"]
    pieces[40][0], pieces[41][0] = pieces[41][0], pieces[40][0]
    (spelled / "tokenizer.json").write_text(json.dumps(content))

    def die(event: Event) -> None:
        if event.kind == "checkpoint":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(
            TrainConfig(data, output, model=str(first), dev_ratio=0.1, save_steps=2, threads=1),
            on_event=die,
        )
    again = ("--output", output, "--dev-ratio", 0.1, "--threads", 1, "--resume", "--no-check")
    line = assert_refused("train", data, "--model", other, *again)
    assert "the checkpoint is of another run: another model" in line
    assert "tokenizer" not in line
    line = assert_refused("train", data, "--model", spelled, *again)
    assert "the checkpoint is of another run: another tokenizer" in line
    assert "another model" not in line
