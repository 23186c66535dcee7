"""Fine-tuning: rows in, a complete Hugging Face folder out.

`train` is the whole run; model, data, loop, evaluation and record live in modules of their own.
The loop is transformers' Seq2SeqTrainer with three things of ours: batches of similar length, a
schedule that can be planned by time, and a loss that is averaged over the labels of a whole
optimizer step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.runtime.errors import MissingExtraError
from edge.runtime.platform.atomic import check_destination
from edge.train.config import TrainConfig
from edge.train.data import load_splits
from edge.train.device import check_libraries, check_processes, choose_machine
from edge.train.distributed import Processes, joined
from edge.train.events import Event, OnEvent, ignore
from edge.train.preflight import LIBRARIES
from edge.train.run import TrainingRun
from edge.train.run_folder import LOG, RunFolder, RunLog, opened_run, run_folder


@dataclass(frozen=True)
class TrainResult:
    """metrics: eval_loss (nats per token), exact_match and rouge_l (0 to 1), bleu (0 to 100)."""

    folder: Path
    metrics: dict[str, float]
    bands: dict[str, str]
    warnings: list[str]
    record: dict[str, object]


def train(
    config: TrainConfig, *, on_event: OnEvent = ignore, processes: Processes | None = None
) -> TrainResult:
    """Train as `config` says and write the model folder `config.output`.

    The folder appears when it is complete: safetensors, config.json, generation_config.json,
    tokenizer.json, training.json, training.md and training_log.jsonl. Until then the run's log and
    checkpoints lie in `run_folder(output)`. On an error no output appears, and a folder that
    `force` was to replace is still there; what a checkpoint has saved can be resumed.

    Under torchrun or accelerate launch every process calls it (`processes`: as `joined` gave them,
    if they have met already). The main one writes the files and calls `on_event`.

    Raises:
        UsageError: a hyperparameter or device that can't be used, a checkpoint of another run.
        DataError: rows that can't be used, or no dev split.
        ModelError: no usable T5-family model.
        OutputExistsError: the output is there already and `force` is off, or an unfinished run of
            it is and neither `resume` nor `force` is on.
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        EdgeError: training diverged, or the disk is full.
        MissingExtraError: the extra `train` is not installed.
    """
    if processes is None:
        with joined() as processes:
            return train(config, on_event=on_event, processes=processes)
    config = config.resolved()
    if not processes.is_main:
        on_event = ignore
    output = Path(config.output)
    # Before minutes of work, not after.
    processes.lead(lambda: check_destination(output, force=config.force))
    _require_extra()
    machine = choose_machine(config.device, config.precision)
    check_processes(config, machine, processes)
    check_libraries(config, machine)
    on_event(Event("stage", "reading the data"))
    splits = load_splits(config)
    with (
        _opened(config, processes) as run,
        tempfile.TemporaryDirectory(prefix="edge-train-") as workplace,
        _threads(config.threads),
    ):
        job = TrainingRun(config, machine, splits, run, Path(workplace), on_event, processes)
        evaluation, record = job.train()
    return TrainResult(output, evaluation.metrics, evaluation.bands, job.warnings, record)


@contextmanager
def _opened(config: TrainConfig, processes: Processes) -> Iterator[RunFolder]:
    """The run's folder, which the main process opens; the others know where it is."""
    output = Path(config.output)
    with ExitStack() as stack:
        opening = opened_run(output, resume=config.resume, force=config.force)
        run = processes.lead(lambda: stack.enter_context(opening))
        if run is None:
            path = run_folder(output)
            run = RunFolder(path, RunLog(path / LOG))
        yield run


def _require_extra() -> None:
    import importlib.util

    for module in LIBRARIES:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"training needs {module}; get it with: pip install 'edge-t5[train]'"
            )


class _threads:  # noqa: N801 - reads as the statement it is
    """Torch's thread count for a while, as it was afterwards."""

    def __init__(self, count: int | None) -> None:
        self._count = count

    def __enter__(self) -> None:
        import torch

        self._before = torch.get_num_threads()
        if self._count is not None:
            torch.set_num_threads(self._count)

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self._before)
