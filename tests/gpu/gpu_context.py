"""What the parts of the GPU suite share: device, data, sizes, and measured training runs."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge.bench.engines.shapes import SHAPES
from edge.runtime.artifact.manifest import Architecture
from edge.train.config import TrainConfig
from edge.train.events import Event
from edge.train.trainer import train

GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """How much each part does.

    Attributes:
        shape: The model with random weights, for speed and memory.
        tokens: Padded tokens of a training step.
        seconds: Time limit of a measured training run.
        rounds: Of the throughput comparison; each measures every way for `round_seconds`.
        small_rows: Training rows of the resume check.
        rows_too_many: Rows of a batch, which the out-of-memory check must halve.
        eval_rows: Dev rows that are evaluated.
        accuracy_seconds: Time limit of the run from scratch.
        accuracy_rows: Dev rows that its accuracy is measured on.
    """

    shape: Architecture
    tokens: int = 16_384
    seconds: float = 9.0
    rounds: int = 3
    round_seconds: float = 2.0
    small_rows: int = 96
    rows_too_many: int = 1024
    eval_rows: int = 64
    accuracy_seconds: float = 50.0
    accuracy_rows: int = 1000


FULL = Sizes(SHAPES["flan-t5-base"])
_TINY_SHAPE = dataclasses.replace(
    SHAPES["flan-t5-base"],
    **{"vocab_size": 300, "d_model": 32, "d_kv": 8, "num_heads": 2, "d_ff": 32},
    **{"num_layers": 1, "num_decoder_layers": 1},
)
# For the test of the suite itself, on a CPU.
TINY = Sizes(
    _TINY_SHAPE,
    tokens=1024,
    seconds=0.3,
    rounds=2,
    round_seconds=0.05,
    small_rows=32,
    rows_too_many=32,
    eval_rows=4,
    accuracy_seconds=0.5,
    accuracy_rows=4,
)


@dataclass(frozen=True)
class Context:
    """Where the suite runs and on what.

    Attributes:
        device: cuda or cpu.
        work: A folder for everything that is written.
        data: A folder with train.jsonl and dev.jsonl.
        model: A trained model folder, or None for one from scratch.
        tokenizer: A folder with T5's tokenizer, or None for made-up pieces.
        sizes: How much to do.
    """

    device: str
    work: Path
    data: Path
    model: Path | None
    tokenizer: Path | None
    sizes: Sizes

    @property
    def base(self) -> Path:
        """The folder of the model with random weights, once it is written."""
        return self.work / "base"

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device == "cuda"


def synchronize(context: Context) -> None:
    """Wait until the GPU has done everything that it was given."""
    if context.is_cuda:
        torch.cuda.synchronize()


@dataclass
class Watch:
    """Listens to a run: losses, times of steps, and the peak of the GPU's memory in training."""

    context: Context
    losses: list[float] = field(default_factory=list)
    steps: list[tuple[int, float]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    peak: int = 0

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if event.kind == "start":
            self.details = dict(event.details)
        elif event.kind == "stage" and self.context.is_cuda:
            if event.message == "training":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            elif event.message == "evaluating":
                self.peak = torch.cuda.max_memory_allocated()
        elif event.kind == "progress" and event.message == "training":
            assert event.loss is not None
            self.losses.append(event.loss)
            self.steps.append((event.step, time.monotonic()))

    @property
    def steps_per_second(self) -> float | None:
        """Without the first steps, in which kernels are loaded; None for a short run."""
        later = [entry for entry in self.steps if entry[0] >= 10]
        if len(later) < 2 or later[-1][1] == later[0][1]:
            return None
        return (later[-1][0] - later[0][0]) / (later[-1][1] - later[0][1])


def measured_run(context: Context, config: TrainConfig) -> dict[str, Any]:
    """Train, and return speed, memory, losses and metrics; the output is deleted.

    Raises:
        EdgeError: As `edge.train.train`.
    """
    watch = Watch(context)
    result = train(config, on_event=watch)
    shutil.rmtree(config.output)
    run = result.record["run"]
    rate = watch.steps_per_second
    tokens = run["tokens_per_second"] * run["train_runtime"]
    rows = run["samples_per_second"] * run["train_runtime"]
    return {
        "model": result.record["model"] if config.from_scratch else "random weights",
        "method": config.method,
        "precision": watch.details["precision"],
        "optimizer": config.optimizer,
        "parameters": watch.details["parameters"],
        "trainable_parameters": watch.details["trainable_parameters"],
        "steps": run["steps"],
        "seconds": run["train_runtime"],
        "tokens_per_second": run["tokens_per_second"],
        "rows_per_second": run["samples_per_second"],
        "steady_tokens_per_second": rate and round(rate * tokens / run["steps"], 1),
        "steady_rows_per_second": rate and round(rate * rows / run["steps"], 1),
        "padding_waste": run["padding_waste"],
        "micro_batches": run["micro_batches"],
        "peak_memory_gib": round(watch.peak / GIB, 3) if context.is_cuda else None,
        "first_loss": watch.losses[0],
        "last_loss": watch.losses[-1],
        "metrics": result.metrics,
        "warnings": result.warnings,
    }


def base_run(context: Context, name: str, **changes: Any) -> dict[str, Any]:
    """A measured run of the model with random weights, limited by time."""
    sizes = context.sizes
    values: dict[str, Any] = {
        "tokens_per_step": sizes.tokens,
        "time_limit": sizes.seconds,
        "device": context.device,
        "precision": "bf16",
        "learning_rate": 1e-4,
        "max_source_length": 128,
        "max_target_length": 64,
        "max_eval_rows": sizes.eval_rows,
        "eval_steps": 0,
        "save_minutes": 0,
        **changes,
    }
    output = context.work / name
    return measured_run(
        context, TrainConfig(context.data, output, model=str(context.base), **values)
    )
