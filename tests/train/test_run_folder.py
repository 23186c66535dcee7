"""The log of a run, and its curves: in the terminal, as PNG, in TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import EdgeError
from edge.train.events import Event
from edge.train.loop.divergence import DivergenceDetector
from edge.train.loop.schedule import TrainingSchedule
from edge.train.metrics import fit_band_eval_loss
from edge.train.output.model_card import evaluation_of
from edge.train.output.record import write_record
from edge.train.run_folder import LOG, RunLog, is_running, open_run_folder, read_run, run_folder

ROWS = [{"input": f"what uh is river {n}?", "target": f"what is river {n}?"} for n in range(60)]


def test_a_run_leaves_curves_snapshots_and_tensorboard(
    edge: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ended = edge(
        "train", data, "--from-scratch", "tiny", "--output", output, "--epochs", 4,
        "--dev-ratio", 0.1, "--vocab-size", 120, "--max-target-length", 16, "--threads", 1,
        "--batch-size", 8, "--eval-steps", 7, "--snapshot-epochs", 2, "--tensorboard",
    )  # fmt: skip
    assert ended.status == 0, ended
    assert "tokens/s" in ended.err
    assert "padding" in ended.err
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any("tfevents" in path.name for path in (output / "tensorboard").iterdir())
    snapshots = run_folder(output) / "snapshots"
    assert sorted(path.name for path in snapshots.iterdir()) == ["epoch-002", "epoch-004"]
    assert (snapshots / "epoch-002" / "model.safetensors").is_file()
    assert not (run_folder(output) / "checkpoints").exists()
    shown = edge("runs", output).out
    assert "finished" in shown
    assert "eval_loss" in shown
    assert shown.count("•") > 10
    assert "┤" in shown
    monkeypatch.chdir(tmp_path)
    listed = edge("runs").out
    assert "out" in listed
    assert "100%" in listed


def test_a_log_is_read_while_it_is_written_and_after_a_crash(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def progress(step: int) -> Event:
        return Event(
            "progress", "training", step / 100, step=step, loss=1.0 / step, learning_rate=0.0
        )

    with (
        pytest.raises(KeyboardInterrupt),
        open_run_folder(output, resume=False, force=False) as run,
    ):
        run.log.on_event(Event("start", details={"epochs": 3}))
        for step in (1, 10, 20):
            run.log.on_event(progress(step))
        assert read_run(run.log.path).status == "running"
        assert is_running(run.path)
        (run.checkpoints / "step-000000010").mkdir()
        with run.log.path.open("a") as file:
            file.write('{"kind": "progress", "st')  # the process dies in the middle of a line
        raise KeyboardInterrupt
    path = run_folder(output) / LOG
    assert read_run(path).status == "stopped"
    log = RunLog(path)
    log.open(append=True)
    log.on_event(Event("resumed", step=10))
    log.on_event(progress(20))
    log.on_event(Event("end", "finished"))
    log.close()
    view = read_run(path)
    assert view.progress[-1]["learning_rate"] == 0.0
    assert view.curve("loss") == ([1, 10, 20], [1.0, 0.1, 0.05])
    assert (view.status, view.details) == ("finished", {"epochs": 3})


def test_a_nan_loss_is_null_in_log_and_record(tmp_path: Path, edge: Callable[..., Any]) -> None:
    path = tmp_path / "out" / LOG
    path.parent.mkdir()
    log = RunLog(path)
    log.open(append=False)
    for step, loss in ((1, 2.0), (2, math.nan), (3, 1.0)):
        log.on_event(Event("progress", "training", step / 3, step=step, loss=loss))
        log.on_event(Event("eval", step=step, details={"eval_loss": loss}))
    log.on_event(Event("progress", "training", 1.0, step=4, loss=math.inf))
    log.close()
    text = path.read_text()
    assert '"loss": null' in text
    assert "NaN" not in text
    assert "Infinity" not in text
    view = read_run(path)
    assert view.curve("loss") == view.curve("eval_loss") == ([1, 3], [2.0, 1.0])
    shown = edge("runs", path.parent).out
    assert "loss nan" in shown
    assert "eval_loss nan" in shown
    run = {"epochs": 1.0, "train_runtime": 1.0, "samples_per_second": 1.0}
    metrics = {"eval_loss": math.nan, "rouge_l": 0.0, "exact_match": 0.0, "bleu": 0.0}
    record = {
        "model": "m",
        "data": {"path": "rows.jsonl", "train_rows": 1},
        "run": run,
        "eval": metrics,
        "fit_bands": {"eval_loss": fit_band_eval_loss(math.nan), "rouge_l": "poor"},
    }
    write_record(tmp_path, record)
    written = json.loads((tmp_path / "training.json").read_text())
    assert written["eval"] == {**metrics, "eval_loss": None}
    assert "nan (poor)" in (tmp_path / "training.md").read_text()
    assert [one.metric for one in evaluation_of(record)] == ["exact_match", "rouge", "bleu"]


def test_a_folder_of_someone_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "precious.txt").write_text("mine")
    opened = open_run_folder(tmp_path / "out", resume=False, force=True)
    with pytest.raises(EdgeError, match="not the folder of a training run"), opened:
        pass
    assert (tmp_path / "out.run" / "precious.txt").read_text() == "mine"


def test_no_run_is_one_line(assert_refused: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no such folder" in assert_refused("runs", tmp_path / "none")
    assert "no training log found" in assert_refused("runs", tmp_path)
    assert "--watch needs RUN" in assert_refused("runs", "--watch")


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
def test_the_schedule_warms_up_and_ends_at_zero(shape: str) -> None:
    schedule = TrainingSchedule(100, None, 0.1, shape)
    factors = [schedule.factor(step) for step in range(101)]
    assert 0 < factors[0] < 0.2
    assert factors[10] == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == (1.0 if shape == "constant" else pytest.approx(0.0, abs=1e-9))


def test_divergence_names_step_and_cause() -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    with pytest.raises(EdgeError, match=r"nan at step 7.*--precision fp32"):
        DivergenceDetector(model, 100, "bf16").check(7, float("nan"), 1.0, 1e-3)
    with pytest.raises(EdgeError, match=r"overflowed: try a lower --learning-rate \(it was 0.001"):
        DivergenceDetector(model, 100, "fp32").check(7, float("inf"), 1.0, 1e-3)
    detector = DivergenceDetector(model, 100, "fp32")
    detector.check(1, 12.0, 12.0, 1e-3)  # a first loss may be high
    detector.check(2, 3.0, 3.0, 1e-3)
    with pytest.raises(EdgeError, match=r"rose to 9.5 by step 3, above the 4.6"):
        detector.check(3, 9.5, 9.5, 1e-3)
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with pytest.raises(EdgeError, match="weights became"):
        DivergenceDetector(model, 100, "bf16").check(7, float("nan"), 1.0, 1e-3)
