"""Two processes that train as one: the same weights, everything written once, a common end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edge.train.checkpoint.store import steps_in
from edge.train.config import TrainConfig
from edge.train.data.sampler import NO_ROW, BatchPartition
from edge.train.run_folder import LOG, read_run, run_folder
from edge.train.synthetic import write_dataset
from edge.train.trainer import TrainResult, train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# No dropout: its masks differ between processes. Everything else that is random is on.
OPTIONS: dict[str, Any] = {
    "from_scratch": "tiny",
    "vocab_size": 150,
    "epochs": 2,
    "tokens_per_step": 900,
    "gradient_accumulation": 2,
    "max_source_length": 32,
    "max_target_length": 16,
    "dropout": 0,
    "ema_ratio": 0.5,
    "eval_steps": 5,
    "eval_batch_size": 3,
    "save_minutes": 0,
    "save_steps": 4,
    "precision": "fp32",
    "device": "cpu",
}


@dataclass(frozen=True)
class Launched:
    status: int
    out: str
    err: str


def launch(program: Sequence[str], *arguments: object) -> Launched:
    """Run `edge train` with OPTIONS in two processes; `program` is what torchrun starts."""
    options = [str(part) for name, value in OPTIONS.items() for part in (_flag(name), value)]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", *program, "train", *map(str, arguments), *options),
            "--no-check",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    return Launched(ended.returncode, ended.stdout, ended.stderr)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


EDGE = ("-m", "edge.cli")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_dataset(folder, seed=4, sizes={"train": 97, "dev": 11})
    return folder


@pytest.fixture(scope="module")
def single(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The same run by one process."""
    output = tmp_path_factory.mktemp("single") / "model"
    return train(TrainConfig(data=questions, output=output, **OPTIONS))


def assert_alike(folder: Path, single: TrainResult) -> None:
    """Weights, losses and figures to what the order of a sum of floats may change."""
    one, two = (
        load_file(single.folder / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=2e-3, atol=2e-3)
    logs = [read_run(path / LOG) for path in (single.folder, folder)]
    (steps, losses), (other_steps, other_losses) = (log.curve("loss") for log in logs)
    assert steps == other_steps
    assert other_losses == pytest.approx(losses, rel=1e-3)
    evals = [log.curve("eval_loss") for log in logs]
    assert evals[0][0] == evals[1][0]
    assert evals[0][0]
    assert evals[1][1] == pytest.approx(evals[0][1], rel=1e-3)
    record = json.loads((folder / "training.json").read_text())
    assert record["eval"]["eval_loss"] == pytest.approx(single.metrics["eval_loss"], rel=1e-3)
    assert record["data"]["evaluated_rows"] == 11
    assert record["hyperparameters"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_train_as_one_does(
    questions: Path, single: TrainResult, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    ended = launch(EDGE, questions, "--output", output)
    assert ended.status == 0, ended.err
    assert_alike(output, single)
    record, alone = json.loads((output / "training.json").read_text()), single.record
    assert record["run"]["steps"] == alone["run"]["steps"]  # type: ignore[index]
    assert record["padding"] == alone["padding"]
    assert ended.err.count("Hyperparameters") == 1
    assert ended.out.count("exact match") == 1
    assert ended.out.count(f"model: {output}") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


_ONE_DIES = """
import os, signal, sys, threading, time
from edge.cli.main import main

def die(checkpoint):
    while not os.path.isdir(checkpoint):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1":
    threading.Thread(target=die, args=[os.environ["CHECKPOINT"]], daemon=True).start()
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_is_resumed(
    questions: Path, single: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, output = tmp_path / "one_dies.py", tmp_path / "model"
    program.write_text(_ONE_DIES)
    checkpoints = run_folder(output) / "checkpoints"
    monkeypatch.setenv("CHECKPOINT", str(checkpoints / "step-000000004"))
    ended = launch([str(program)], questions, "--output", output)
    assert ended.status != 0
    lines = [line for line in ended.err.splitlines() if line.startswith("edge: ")]
    assert len(lines) <= 1, lines  # none where the launcher was faster
    assert all("another process of this run died" in line for line in lines)
    assert steps_in(checkpoints)[-1] >= 4
    again = launch(EDGE, questions, "--output", output, "--resume")
    assert again.status == 0, again.err
    assert "resuming from the checkpoint of step" in again.err
    assert_alike(output, single)


_OTHER_ROWS = """
import os, sys
from edge.cli.main import main

if os.environ["RANK"] == "1":
    sys.argv[2] = os.environ["OTHER"]
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not json", "process 1: {path}:1: "),
        (None, "process 1 sees another tokenizer and data than process 0"),
    ],
)
def test_a_failing_process_ends_the_others_with_its_reason(
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    reason: str,
) -> None:
    other = tmp_path / "other"
    write_dataset(other, seed=5, sizes={"train": 97, "dev": 11})
    if content is not None:
        (other / "train.jsonl").write_text(content)
    program, output = tmp_path / "other_rows.py", tmp_path / "model"
    program.write_text(_OTHER_ROWS)
    monkeypatch.setenv("OTHER", str(other))
    ended = launch([str(program)], questions, "--output", output)
    assert ended.status != 0
    lines = [line for line in ended.err.splitlines() if line.startswith("edge: ")]
    assert len(lines) == 1, ended.err
    assert reason.format(path=other / "train.jsonl") in lines[0]
    assert not output.exists()
    assert not run_folder(output).exists()


@pytest.mark.parametrize(("count", "parts"), [(2, 1), (1, 2), (3, 4), (2, 8)])
def test_every_row_is_dealt_once(count: int, parts: int) -> None:
    batch = list(range(13))
    dealt = [
        passed
        for rank in range(count)
        for passed in BatchPartition(rank, count, parts).split(batch)
    ]
    assert len(dealt) == count * parts  # all processes do equally many passes
    assert sorted(row for rows in dealt for row in rows if row != NO_ROW) == batch
    assert all(rows for rows in dealt)
    sizes = [len([row for row in rows if row != NO_ROW]) for rows in dealt]
    assert max(sizes) - min(sizes) <= 1


def test_fewer_rows_than_processes_are_refused(questions: Path, tmp_path: Path) -> None:
    from edge.runtime.errors import UsageError
    from edge.train.device import DeviceConfig, check_processes
    from edge.train.distributed import Processes

    config = TrainConfig(questions, tmp_path, model="m", batch_size=1)
    with pytest.raises(UsageError, match="--batch-size 1 is the total of all 2 processes"):
        check_processes(config, DeviceConfig("cpu", "fp32"), Processes(0, 2))
    with pytest.raises(UsageError, match="Apple"):
        check_processes(config, DeviceConfig("mps", "fp32"), Processes(0, 2))
