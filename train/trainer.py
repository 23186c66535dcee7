"""Fine-tuning: rows in, a complete Hugging Face folder out.

`train` is the whole run; model, data, loop, evaluation and record live in modules of their own.
The loop is transformers' Seq2SeqTrainer with three things of ours: batches of similar length, a
schedule that can be planned by time, and a loss that is averaged over the labels of a whole
optimiser step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.atomic import check_destination
from edge.runtime.errors import MissingExtraError
from edge.train.checkpoint import newest_checkpoint, require_same
from edge.train.config import TrainConfig
from edge.train.data import Splits, load_splits, tokenize
from edge.train.device import Machine, check_libraries, choose_machine
from edge.train.events import Event, OnEvent, ignore
from edge.train.identity import identity_of
from edge.train.lora import add_adapter, merge_trained, save_adapter
from edge.train.models import Trainable, open_model
from edge.train.output import run_details, save_model, save_output, training_record
from edge.train.runs import RunFolder, opened_run, run_folder

if TYPE_CHECKING:
    from datasets import Dataset

    from edge.train.checkpoint import Checkpoint
    from edge.train.evaluate import Evaluation
    from edge.train.loop import LoopResult
    from edge.train.watch import Evaluate


@dataclass(frozen=True)
class TrainResult:
    """metrics: eval_loss (nats per token), exact_match and rouge_l (0 to 1), bleu (0 to 100)."""

    folder: Path
    metrics: dict[str, float]
    bands: dict[str, str]
    warnings: list[str]
    record: dict[str, object]


def train(config: TrainConfig, *, on_event: OnEvent = ignore) -> TrainResult:
    """Train as `config` says and write the model folder `config.output`.

    The folder appears when it is complete: safetensors, config.json, generation_config.json,
    tokenizer.json, training.json, training.md and training_log.jsonl. Until then the run's log and
    checkpoints lie in `run_folder(output)`. On an error no output appears, and a folder that
    `force` was to replace is still there; what a checkpoint has saved can be resumed.

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
    config = config.resolved()
    output = Path(config.output)
    check_destination(output, force=config.force)  # before minutes of work, not after
    _require_extra()
    machine = choose_machine(config.device, config.precision)
    check_libraries(config, machine)
    on_event(Event("stage", "reading the data"))
    splits = load_splits(config)
    with (
        opened_run(output, resume=config.resume, force=config.force) as run,
        tempfile.TemporaryDirectory(prefix="edge-train-") as workplace,
        _threads(config.threads),
    ):
        return _Run(config, machine, splits, run, Path(workplace), on_event).train()


class _Run:
    """One run with its folder; holds what its parts hand to each other."""

    def __init__(
        self,
        config: TrainConfig,
        machine: Machine,
        splits: Splits,
        run: RunFolder,
        workplace: Path,
        on_event: OnEvent,
    ) -> None:
        self.config, self.why = config.for_rows(len(splits.train))
        self.machine, self.splits, self.run, self.workplace = machine, splits, run, workplace
        self.warnings: list[str] = []
        self._listeners = [on_event, run.log.on_event]
        if config.tensorboard:
            from edge.train.curves import TensorBoardLog

            self._listeners.append(TensorBoardLog(run.path / "tensorboard").on_event)

    def tell(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event.message)
        for listener in self._listeners:
            listener(event)

    def warn(self, messages: list[str]) -> None:
        for message in messages:
            self.tell(Event("warning", message))

    def train(self) -> TrainResult:
        config = self.config
        self.warn(self.splits.warnings)
        self.tell(Event("stage", "preparing model and tokenizer"))
        texts = [text for pair in self.splits.train for text in (pair.source, pair.target)]
        trainable = open_model(config, texts, self.workplace)
        self.warn(trainable.warnings)
        identity = identity_of(config, trainable, self.splits)
        checkpoint = self._checkpoint(identity)
        if config.method != "full":
            add_adapter(trainable, config)
        train_rows, dev_rows = self._tokenized(trainable)
        details = run_details(config, self.machine, self.splits, trainable)
        self.tell(Event("start", details=details, reasons=self.why))
        loop = self._loop(trainable, train_rows, dev_rows, identity, checkpoint)
        if config.method != "full":
            save_adapter(trainable, self.run.path / "adapter")
            merge_trained(trainable, config, self.run.path / "adapter")
        evaluation, seconds = self._evaluate(trainable, dev_rows)
        record = training_record(config, self.splits, trainable, loop, evaluation, seconds, details)
        record["warnings"] = self.warnings
        self.tell(Event("stage", "writing the model folder"))
        self.tell(Event("end", "finished"))
        output = Path(config.output)
        save_output(output, config, trainable, record, self.run)
        return TrainResult(output, evaluation.metrics, evaluation.bands, self.warnings, record)

    def _checkpoint(self, identity: dict[str, object]) -> Checkpoint | None:
        if not self.config.resume:
            return None
        checkpoint, complaints = newest_checkpoint(self.run.checkpoints)
        self.warn(complaints)
        if checkpoint is None:
            place = run_folder(Path(self.config.output))
            self.warn([f"{place} has no complete checkpoint: starting from the beginning"])
        else:
            require_same(checkpoint, identity)
        return checkpoint

    def _tokenized(self, trainable: Trainable) -> tuple[Dataset, Dataset]:
        config, tokenizer = self.config, trainable.tokenizer
        assert config.max_source_length is not None
        limits = {
            "max_source_length": config.max_source_length,
            "max_target_length": config.max_target_length,
        }
        train_rows, messages = tokenize(self.splits.train, tokenizer, **limits, name="training")
        dev = self.splits.dev[: config.max_eval_rows]
        dev_rows, more = tokenize(dev, tokenizer, **limits, name="dev")
        self.warn([*messages, *more])
        return train_rows, dev_rows

    def _loop(
        self,
        trainable: Trainable,
        rows: Dataset,
        dev_rows: Dataset,
        identity: dict[str, object],
        checkpoint: Checkpoint | None,
    ) -> LoopResult:
        from edge.train.augment import Renamer
        from edge.train.keeper import Keeper
        from edge.train.loop import Around, run_loop

        config = self.config
        renamer = None
        if config.rename_share:
            renamer = Renamer(self.splits.train, share=config.rename_share, seed=config.seed)
        self.tell(Event("stage", "training"))
        around = Around(
            Keeper(config, self.run, identity, self.tell),
            self._evaluator(trainable, dev_rows),
            lambda name: save_model(self.run.snapshots / name, trainable, force=True),
            self.tell,
        )
        return run_loop(
            config, self.machine, trainable, rows, renamer, self.workplace, around, checkpoint
        )

    def _evaluator(self, trainable: Trainable, rows: Dataset) -> Evaluate:
        """The figures that `best_metric` needs; None where `should_stop` became true meanwhile."""
        from edge.train.evaluate import evaluate, evaluation_loss

        def run(should_stop: Callable[[], bool]) -> dict[str, float] | None:
            def look(fraction: float) -> None:
                if fraction < 1.0 and should_stop():
                    raise _StopEvaluationError

            model, tokenizer, size = trainable.model, trainable.tokenizer, config.eval_batch_size
            try:
                if config.best_metric == "eval_loss":
                    return evaluation_loss(
                        model, tokenizer, rows, batch_size=size, on_fraction=look
                    )
                return evaluate(
                    model,
                    tokenizer,
                    rows,
                    batch_size=size,
                    max_new_tokens=config.max_target_length,
                    on_fraction=look,
                ).metrics
            except _StopEvaluationError:
                return None

        config = self.config
        return run

    def _evaluate(self, trainable: Trainable, rows: Dataset) -> tuple[Evaluation, float]:
        from edge.train.evaluate import evaluate

        self.tell(Event("stage", "evaluating"))
        start = time.monotonic()
        evaluation = evaluate(
            trainable.model,
            trainable.tokenizer,
            rows,
            batch_size=self.config.eval_batch_size,
            max_new_tokens=self.config.max_target_length,
            on_fraction=lambda fraction: self.tell(Event("progress", "evaluating", fraction)),
        )
        return evaluation, time.monotonic() - start


class _StopEvaluationError(Exception):
    """Ends an evaluation that nobody waits for any more."""


def _require_extra() -> None:
    import importlib.util

    for module in ("torch", "transformers", "datasets", "accelerate", "rouge_score", "sacrebleu"):
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
