"""Crash safety: what is resumed ends bit for bit as what was never interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge.runtime.errors import EdgeError, OutputExistsError, UsageError
from edge.train.checkpoint.store import (
    newest_checkpoint,
    open_checkpoint,
    steps_in,
    write_checkpoint,
)
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.run_folder import LOG, read_run, run_folder
from edge.train.synthetic import write_dataset
from edge.train.trainer import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")

STEPS = 24


class DiedError(Exception):
    """Stands for a crash at a step, where the whole process can't be killed."""


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_dataset(folder, seed=4, sizes={"train": 96, "dev": 8})
    return folder


def tiny(data: Path, output: Path, **changes: Any) -> TrainConfig:
    """24 steps with everything random switched on: dropout, renamed words, an average."""
    config = TrainConfig(
        data=data,
        output=output,
        from_scratch="tiny",
        vocab_size=150,
        epochs=4,
        batch_size=8,
        gradient_accumulation=2,
        max_source_length=32,
        max_target_length=16,
        dropout=0.1,
        ema_ratio=0.5,
        save_steps=5,
        save_minutes=0,
        precision="fp32",
        device="cpu",
        threads=1,
    )
    return replace(config, **changes)


def dies_at(step: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if event.kind == "checkpoint" and event.step >= step:
            raise DiedError

    return listen


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "model"
    train(tiny(questions, output, save_steps=None))
    return output


@pytest.mark.parametrize(
    "dies", [15, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 20))]
)
def test_resumed_equals_uninterrupted(
    questions: Path, uninterrupted: Path, tmp_path: Path, dies: int
) -> None:
    """Within an epoch and before and after the average begins; 6 steps are an epoch."""
    output = tmp_path / "model"
    with pytest.raises(DiedError):
        train(tiny(questions, output), on_event=dies_at(dies))
    assert not output.exists()
    assert steps_in(run_folder(output) / "checkpoints")[-1] == dies
    torch.manual_seed(99)  # chance of the next process is another
    random.seed(99)
    events: list[Event] = []
    result = train(tiny(questions, output, resume=True), on_event=events.append)
    assert [e.step for e in events if e.kind == "resumed"] == [dies]
    assert_same(output, uninterrupted)
    assert result.record["run"]["steps"] == STEPS  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    view = read_run(output / LOG)
    steps = [entry["step"] for entry in view.progress]
    assert steps == sorted(set(steps))
    assert view.status == "finished"


def test_batches_of_a_token_budget_and_dealt_rows_resume(questions: Path, tmp_path: Path) -> None:
    """Renamed rows have other lengths in every epoch, and so other batches."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes: dict[str, Any] = {"tokens_per_step": 900, "long": "chunk", "epochs": 2}
    train(tiny(questions, whole, **changes))
    with pytest.raises(DiedError):
        train(tiny(questions, parts, **changes), on_event=dies_at(10))
    with pytest.raises(UsageError, match="--tokens-per-step 900 where this run has 500"):
        train(tiny(questions, parts, resume=True, **{**changes, "tokens_per_step": 500}))
    result = train(tiny(questions, parts, resume=True, **changes))
    assert_same(whole, parts)
    assert result.record["run"]["steps"] > 10  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_any_optimizer_and_schedule_resume(questions: Path, tmp_path: Path, optimizer: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"optimizer": optimizer, "schedule": "cosine", "epochs": 2, "ema_ratio": 0.0}
    changes["gradient_checkpointing"] = True
    train(tiny(questions, whole, **changes))
    with pytest.raises(DiedError):
        train(tiny(questions, parts, **changes), on_event=dies_at(5))
    train(tiny(questions, parts, resume=True, **changes))
    assert_same(whole, parts)


@pytest.mark.slow
def test_the_best_and_early_stopping_survive(questions: Path, tmp_path: Path) -> None:
    """A rate so high that evaluations get worse: stops early and ends with the best."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes: dict[str, Any] = {"eval_steps": 2, "patience": 2, "ema_ratio": 0.0, "epochs": 10}
    changes |= {"learning_rate": 0.05, "save_limit": 1}
    events: list[Event] = []
    train(tiny(questions, whole, **changes), on_event=events.append)
    evals = {e.step: e.details["eval_loss"] for e in events if e.kind == "eval"}
    notes = " ".join(e.message for e in events if e.kind == "note")
    best = min(evals, key=evals.__getitem__)  # type: ignore[arg-type]
    assert max(evals) == best + 4 < 60
    assert "stopped early" in notes
    assert f"the best weights are of step {best}" in notes
    with pytest.raises(DiedError):
        train(tiny(questions, parts, **changes), on_event=dies_at(best))
    train(tiny(questions, parts, resume=True, **changes))
    assert_same(whole, parts)


def test_checkpoint_of_another_run_is_refused(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    with pytest.raises(DiedError):
        train(tiny(questions, output), on_event=dies_at(5))
    with pytest.raises(OutputExistsError, match=r"step 5.*--resume"):
        train(tiny(questions, output))
    with pytest.raises(UsageError, match=r"--learning-rate 0.002 where this run has 0.1"):
        train(tiny(questions, output, resume=True, learning_rate=0.1))
    with pytest.raises(UsageError, match="another model"):
        train(tiny(questions, output, resume=True, vocab_size=160))
    write_dataset(tmp_path / "other", seed=5, sizes={"train": 96, "dev": 8})
    with pytest.raises(UsageError, match="other rows"):
        train(tiny(tmp_path / "other", output, resume=True))
    assert steps_in(run_folder(output) / "checkpoints") == [5]


def test_a_damaged_checkpoint_is_passed_over(
    questions: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    with pytest.raises(DiedError):
        train(tiny(questions, output), on_event=dies_at(10))
    place = run_folder(output) / "checkpoints"
    damaged = place / "step-000000010" / "state.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    events: list[Event] = []
    train(tiny(questions, output, resume=True), on_event=events.append)
    assert any("is damaged" in e.message for e in events if e.kind == "warning")
    assert [e.step for e in events if e.kind == "resumed"] == [5]
    assert_same(output, uninterrupted)


def test_a_torn_checkpoint_is_not_opened(tmp_path: Path) -> None:
    identity = {"model": "m"}
    write_checkpoint(tmp_path, 3, identity, {"a": torch.ones(2)}, {"b": 1})
    assert open_checkpoint(tmp_path, 3).json_state() == {"b": 1}
    write_checkpoint(tmp_path, 4, identity, {"a": torch.ones(2)}, {"b": 1})
    for harm in (lambda f: f.unlink(), lambda f: f.write_text("{}"), lambda f: f.write_text("[1")):
        harm(tmp_path / "step-000000004" / "manifest.json")
        with pytest.raises(EdgeError, match="damaged"):
            open_checkpoint(tmp_path, 4)
        found, complaints = newest_checkpoint(tmp_path)
        assert found is not None
        assert (found.step, len(complaints)) == (3, 1)
        if not (tmp_path / "step-000000004" / "manifest.json").exists():
            (tmp_path / "step-000000004" / "manifest.json").touch()


Harm = Callable[[Path], None]


def _rewrite(**changes: Any) -> Harm:
    def harm(folder: Path) -> None:
        content = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(content | changes))

    return harm


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Harm:
    def harm(folder: Path) -> None:
        tensors = load_file(folder / "state.safetensors")
        change(tensors)
        save_file(tensors, folder / "state.safetensors")

    return harm


def _set(prefix: str, value: float) -> Harm:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        next(t for n, t in tensors.items() if n.startswith(prefix)).fill_(value)

    return _tensors(change)


def _drop(part: str) -> Harm:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return _tensors(change)


def _optimizer_without_state(folder: Path) -> None:
    groups = json.loads((folder / "state.json").read_text())["optimizer"]["groups"]
    _rewrite(optimizer={"state": {}, "groups": groups})(folder)
    _drop("optimizer.")(folder)


def _cut(folder: Path) -> None:
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Found while the files are read: an older checkpoint is used.
UNREADABLE: dict[str, Harm] = {
    "cut": _cut,
    "pickle": lambda f: (f / "state.safetensors").write_bytes(b"\x80\x04K\x01.") and None,
    "list": lambda f: (f / "state.json").write_text("[]") and None,
    "deep": lambda f: (f / "state.json").write_text("[" * 200_000) and None,
    "NaN weight": _set("model.", float("nan")),
    "infinite moment": _set("optimizer.", float("inf")),
}
# Found while they are applied.
UNFIT: dict[str, Harm] = {
    "empty": lambda f: (f / "state.json").write_text("{}") and None,
    "scheduler": _rewrite(scheduler="zz"),
    "generators": _rewrite(rng=[{}]),
    "elapsed": _rewrite(elapsed=float("nan")),
    "micro-batches": _rewrite(micro_batches=10**12),
    "best": _rewrite(evaluation={"best": 1, "evaluated_step": 0}),
    "no optimizer": _optimizer_without_state,
    "no moments": _drop(".exp_avg"),
    "no weights": _drop("model."),
}


def _seal(folder: Path) -> None:
    """Make the checksums those of the damaged files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        content = (folder / name).read_bytes()
        file |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def died_at_10(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("died") / "model"
    with pytest.raises(DiedError):
        train(tiny(questions, output), on_event=dies_at(10))
    return run_folder(output)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_sealed_but_unreadable_checkpoint_is_passed_over(
    name: str, died_at_10: Path, tmp_path: Path
) -> None:
    place = tmp_path / "checkpoints"
    shutil.copytree(died_at_10 / "checkpoints", place)
    UNREADABLE[name](place / "step-000000010")
    _seal(place / "step-000000010")
    found, [message] = newest_checkpoint(place)
    assert found is not None
    assert found.step == 5
    assert "step-000000010: this checkpoint is damaged (" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", UNFIT)
def test_a_sealed_checkpoint_that_does_not_fit_is_one_line(
    name: str, questions: Path, died_at_10: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    shutil.copytree(died_at_10, run_folder(output))
    place = run_folder(output) / "checkpoints"
    UNFIT[name](place / "step-000000010")
    _seal(place / "step-000000010")
    with pytest.raises(EdgeError, match="step-000000010: this checkpoint is damaged") as raised:
        train(tiny(questions, output, resume=True))
    assert raised.value.exit_code == 2
    assert len(str(raised.value).splitlines()) == 1
    assert "move that folder away" in str(raised.value)
    assert steps_in(place) == [5, 10]


def test_a_damaged_only_checkpoint_takes_no_place_from_new_ones(
    questions: Path, died_at_10: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    shutil.copytree(died_at_10, run_folder(output))
    place = run_folder(output) / "checkpoints"
    shutil.rmtree(place / "step-000000005")
    _cut(place / "step-000000010")
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        dies_at(5)(event)

    with pytest.raises(DiedError):
        train(tiny(questions, output, resume=True, save_limit=1), on_event=listen)
    assert steps_in(place) == [5, 10]
    kinds = [e.kind if e.kind != "stage" else e.message for e in events]
    warnings = [e.message for e in events if e.kind == "warning"]
    assert any("this checkpoint is damaged" in message for message in warnings)
    assert any("starting from step 0" in message for message in warnings)
    assert kinds.index("warning") < kinds.index("training")


def test_a_damaged_best_checkpoint_does_not_end_the_run(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if "stopped early" in event.message:
            for folder in (run_folder(output) / "checkpoints").glob("step-*"):
                _cut(folder)

    changes: dict[str, Any] = {"eval_steps": 2, "patience": 2, "ema_ratio": 0.0, "epochs": 10}
    changes |= {"learning_rate": 0.05, "save_limit": 1, "save_steps": None}
    train(tiny(questions, output, **changes), on_event=listen)
    warnings = [e.message for e in events if e.kind == "warning"]
    assert any("weights of the last step instead of the best" in text for text in warnings)
    assert (output / "model.safetensors").is_file()


def test_two_processes_never_share_a_run(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"

    def second(event: Event) -> None:
        if event.kind == "checkpoint":
            with pytest.raises(UsageError, match="another process"):
                train(tiny(questions, output, resume=True))
            raise DiedError

    with pytest.raises(DiedError):
        train(tiny(questions, output), on_event=second)


# A real process, killed for real.


def command(questions: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "edge.cli", "train", str(questions), "--output", str(output)),
        *("--from-scratch", "tiny", "--vocab-size", "150", "--epochs", "4", "--batch-size", "8"),
        *("--gradient-accumulation", "2", "--max-source-length", "32", "--dropout", "0.1"),
        *("--max-target-length", "16", "--ema-ratio", "0.5", "--save-steps", "2"),
        *("--save-minutes", "0", "--precision", "fp32", "--device", "cpu", "--threads", "1"),
        "--no-check",  # most rows are longer than this, which it would refuse
        *more,
    ]


def start(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for_training(process: subprocess.Popen[str], output: Path, entries: int) -> None:
    """Until the log has that many lines, or the process is done."""
    log = run_folder(output) / LOG
    while process.poll() is None:
        if log.is_file() and log.read_text().count("\n") >= entries:
            return
        time.sleep(0.01)


def kill_until_done(questions: Path, output: Path, kills: int, seed: int) -> int:
    """SIGKILL the training at random moments; returns how often it was alive to be killed."""
    chance, killed = random.Random(seed), 0
    while killed < kills:
        process = start(questions, output, "--resume")
        log = run_folder(output) / LOG
        before = log.read_text().count("\n") if log.is_file() else 0
        # Some die before training proper begins, most between two of its steps or in a write.
        wait_for_training(process, output, before + chance.randrange(0, 6))
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return killed
        assert process.returncode == -signal.SIGKILL
        killed += 1
        for step in steps_in(run_folder(output) / "checkpoints"):
            open_checkpoint(run_folder(output) / "checkpoints", step)  # visible is complete
    return killed


@pytest.mark.parametrize("kills", [2, pytest.param(22, marks=pytest.mark.slow)])
def test_killed_at_random_moments(
    questions: Path, uninterrupted: Path, tmp_path: Path, kills: int
) -> None:
    killed = seed = 0
    while killed < kills:
        output = tmp_path / f"model{seed}"
        killed += kill_until_done(questions, output, kills - killed, seed)
        if not output.exists():
            train(tiny(questions, output, resume=True))
        assert_same(output, uninterrupted)
        assert not run_folder(output).exists()
        seed += 1


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_ends(
    questions: Path, uninterrupted: Path, tmp_path: Path, number: int, status: int
) -> None:
    output = tmp_path / "model"
    process = start(questions, output)
    while not steps_in(run_folder(output) / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, printed = process.communicate()
    assert process.returncode == status, printed
    line = printed.strip().splitlines()[-1]
    assert line.startswith("edge: stopped at step ")
    assert "--resume" in line
    place = run_folder(output) / "checkpoints"
    step = steps_in(place)[-1]
    assert f"step {step}," in line
    assert 0 < step < STEPS
    if number == signal.SIGTERM:
        train(tiny(questions, output, resume=True))
        assert_same(output, uninterrupted)


_FULL = """
import resource, sys
from edge.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
main(sys.argv[1:])
"""


def test_a_full_disk_keeps_the_last_good_checkpoint(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    with pytest.raises(DiedError):
        train(tiny(questions, output, save_steps=2), on_event=dies_at(4))
    place = run_folder(output) / "checkpoints"
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    arguments = command(questions, output, "--resume")[3:]
    ended = subprocess.run(
        [sys.executable, "-c", _FULL.replace("MOST_BYTES", "500_000"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert ended.returncode == 1, ended.stderr
    assert "no checkpoint of step 6" in ended.stderr
    assert "the newest is of step 4" in ended.stderr
    assert "nothing was written there" in ended.stderr.strip().splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert json.loads((place / "step-000000004" / "manifest.json").read_text())["step"] == 4
