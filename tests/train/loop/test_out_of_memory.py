"""A batch that is too big for memory is halved, and a step still learns from the same rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

from edge.runtime.errors import EdgeError
from edge.train.checkpoint.store import steps_in
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.run_folder import LOG, read_run, run_folder
from edge.train.synthetic import write_dataset
from edge.train.trainer import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_dataset(folder, seed=4, sizes={"train": 96, "dev": 9})
    return folder


def tiny(data: Path, output: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data,
        output,
        from_scratch="tiny",
        vocab_size=150,
        epochs=3,
        batch_size=16,
        eval_batch_size=8,
        max_source_length=32,
        max_target_length=16,
        dropout=0.0,
        save_minutes=0,
        precision="fp32",
        device="cpu",
    )
    return replace(config, **changes)


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the model's forward pass fail as torch's CUDA allocator does, for too many rows."""
    forward = T5ForConditionalGeneration.forward

    def limit(rows: int, *, after: int = 0) -> None:
        passes = 0

        def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal passes
            passes += 1
            ids = kwargs.get("input_ids")
            if ids is not None and len(ids) > rows and passes > after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(T5ForConditionalGeneration, "forward", limited)

    return limit


def assert_close(first: Path, second: Path) -> None:
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=2e-3, atol=2e-3)


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if event.kind == "warning"]


@pytest.mark.slow
def test_halved_batches_learn_the_same(
    questions: Path, tmp_path: Path, at_most: Callable[..., None]
) -> None:
    """In the middle of an accumulated step, twice, and again after the run was resumed."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    changes = {"gradient_accumulation": 2, "save_steps": 4}
    train(tiny(questions, whole, **changes))
    at_most(4, after=5)  # five passes are two steps and a half
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "checkpoint" and event.step == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(tiny(questions, halved, **changes), on_event=listen)
    told = [text for text in warnings(events) if "too big for memory at step" in text]
    assert len(told) == 2
    assert "16 rows was too big for memory at step 3" in told[0]
    assert "halved to 8 rows" in told[0]
    assert "gradient accumulation (4)" in told[0]
    assert "8 rows was too big for memory at step 3" in told[1]
    assert steps_in(run_folder(halved) / "checkpoints") == [4, 8]
    result = train(tiny(questions, halved, resume=True, **changes))
    assert not [text for text in result.warnings if "at step" in text]  # it starts as it ended
    assert any("evaluation: batches of 8 rows" in text for text in result.warnings)
    run = result.record["run"]
    assert (run["steps"], run["micro_batches"]) == (9, 4)  # type: ignore[index]
    assert_close(whole, halved)
    losses = [read_run(folder / LOG).curve("loss")[1] for folder in (whole, halved)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_rows_that_do_not_fit_alone_end_the_run(
    questions: Path, tmp_path: Path, at_most: Callable[..., None]
) -> None:
    at_most(0)
    with pytest.raises(EdgeError, match=r"step 1 is too big for memory even row by row.*--max-so"):
        train(tiny(questions, tmp_path / "out", batch_size=2))
    assert not list(tmp_path.iterdir())


_LIMITED = """
import resource, sys
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.trainer import train

def listen(event):
    if event.kind == "stage" and event.message == "training":
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, -1))
    if event.kind == "stage" and event.message == "evaluating":
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))  # libraries are loaded there
    if event.kind == "warning":
        print(event.message, flush=True)

config = TrainConfig(
    sys.argv[1], sys.argv[2], from_scratch="tiny", epochs=1, batch_size=240, eval_batch_size=16,
    max_source_length=64, max_target_length=32, dropout=0.0, precision="fp32", device="cpu",
    threads=1, save_minutes=0,
)
result = train(config, on_event=listen)
print("steps", result.record["run"]["steps"], "parts", result.record["run"]["micro_batches"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_process_that_really_runs_out_of_memory_goes_on(tmp_path: Path) -> None:
    """A real limit on the address space, and torch's own allocator that fails."""
    data = tmp_path / "data"
    write_dataset(data, seed=4, sizes={"train": 240, "dev": 8})
    ended = subprocess.run(
        [
            *(sys.executable, "-c", _LIMITED.replace("ROOM", str(160 << 20))),
            *(str(data), str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        # One malloc arena: no room is set aside for threads that there aren't.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "a batch of 240 rows was too big for memory at step 1" in ended.stdout
    *_, parts = ended.stdout.split()
    assert ended.stdout.splitlines()[-1].startswith("steps 1 parts ")
    assert int(parts) >= 2
    assert (tmp_path / "out" / "model.safetensors").is_file()
