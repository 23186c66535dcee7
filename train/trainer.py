"""Fine-tuning: rows in, a complete Hugging Face model folder out.

The loop is transformers' Seq2SeqTrainer with three changes: batches of similar length, a schedule
that can be planned by time, and a loss averaged over the labels of a whole optimizer step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.registry import require
from edge.train.config import TrainConfig
from edge.train.data import load_splits
from edge.train.device import (
    check_libraries,
    check_processes,
    choose_device,
    torch_threads,
)
from edge.train.distributed import Processes, process_group
from edge.train.events import Event, OnEvent, ignore
from edge.train.preflight import LIBRARIES, require_ready
from edge.train.run import TrainingRun
from edge.train.run_folder import RunFolder, check_output, open_run_folder


@dataclass(frozen=True)
class TrainResult:
    """The result of `train`.

    Attributes:
        folder: The model folder.
        metrics: eval_loss (nats per token), exact_match and rouge_l (0 to 1), bleu (0 to 100), on
            the dev split.
        bands: The quality band of eval_loss and rouge_l, such as "good".
        warnings: Everything that was reported as a warning.
        record: The content of training.json.
    """

    folder: Path
    metrics: dict[str, float]
    bands: dict[str, str]
    warnings: list[str]
    record: dict[str, Any]


def train(
    config: TrainConfig,
    *,
    on_event: OnEvent = ignore,
    check: bool = False,
    processes: Processes | None = None,
) -> TrainResult:
    """Train a T5-family model and write the model folder `config.output`.

    The folder appears when it is complete: safetensors, config.json, generation_config.json,
    tokenizer.json, training.json, training.md, training_log.jsonl and curves.png. Until then, log
    and checkpoints are in the folder OUTPUT.run. After an error, no output appears, a folder that
    `force` was to replace is unchanged, and `resume` continues from the last checkpoint.

    Under torchrun or accelerate launch, call it in every process. Only the main process writes
    files and calls `on_event`.

    Example:
        >>> from edge.train import TrainConfig, train
        >>> config = TrainConfig(
        ...     data="rows.jsonl", output="my-model", model="google/flan-t5-small", dev_ratio=0.1
        ... )
        >>> result = train(config, on_event=lambda event: print(event.kind, event.message))
        >>> result.metrics["exact_match"]

    Args:
        config: What to train, on which rows, and how.
        on_event: Is called with each `Event`: stages, progress, evaluations, warnings.
        check: Run the checks of `edge check` first.
        processes: From `edge.train.distributed.process_group`, if the caller has joined it.

    Raises:
        UsageError: A hyperparameter or device can't be used, or a checkpoint is of another run.
        DataError: The rows can't be used, or there is no dev split.
        ModelError: The model is not a usable T5-family model.
        OutputExistsError: The output exists and `force` is off, or it has an unfinished run and
            neither `resume` nor `force` is on.
        PreflightError: `check` is on and a check failed.
        StoppedError: SIGINT or SIGTERM was received; a checkpoint is written.
        MissingExtraError: The extra `train` is not installed.
        EdgeError: Training diverged, a row does not fit in memory, or the disk is full.
    """
    if processes is None:
        with process_group() as processes:
            return train(config, on_event=on_event, check=check, processes=processes)
    resolved = config.resolved()
    if check:
        processes.on_main_process(lambda: require_ready(config))
    if not processes.is_main:
        on_event = ignore
    output = Path(resolved.output)
    # Checked before minutes of work, not after.
    processes.on_main_process(lambda: check_output(resolved))
    require("training", "train", *LIBRARIES)
    device_config = choose_device(resolved.device, resolved.precision)
    check_processes(resolved, device_config, processes)
    check_libraries(resolved, device_config)
    on_event(Event("stage", "reading the data"))
    splits = load_splits(resolved)
    with (
        _open_run_folder(resolved, processes) as run,
        tempfile.TemporaryDirectory(prefix="edge-train-") as work_dir,
        torch_threads(resolved.threads),
    ):
        outcome = TrainingRun(
            resolved, device_config, splits, run, Path(work_dir), on_event, processes
        ).train()
    evaluation = outcome.evaluation
    return TrainResult(
        output, evaluation.metrics, evaluation.bands, outcome.warnings, outcome.record
    )


@contextmanager
def _open_run_folder(config: TrainConfig, processes: Processes) -> Iterator[RunFolder]:
    """The run folder, which only the main process opens."""
    output = Path(config.output)
    with ExitStack() as stack:
        opening = open_run_folder(output, resume=config.resume, force=config.force)
        run = processes.on_main_process(lambda: stack.enter_context(opening))
        yield run if run is not None else RunFolder.of(output)
