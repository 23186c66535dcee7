"""One training run, from its rows to its model folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.train.augment.epoch import EpochAugmentation
from edge.train.checkpoint.fingerprint import run_fingerprint
from edge.train.checkpoint.resume import require_same_fingerprint, state_to_resume
from edge.train.data import Pair, texts_of, tokenize
from edge.train.data.overflow import fit_rows
from edge.train.distributed import SINGLE_PROCESS
from edge.train.evaluator import DevEvaluator
from edge.train.events import Event, EventDispatcher
from edge.train.model.lora import add_adapter, merge_trained, save_adapter
from edge.train.model.opening import open_model
from edge.train.output.depth_report import DepthReport
from edge.train.output.model_folder import run_details, save_model, save_output, training_record

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.checkpoint.state import SavedState
    from edge.train.config import ResolvedTrainConfig
    from edge.train.data import Splits
    from edge.train.device import DeviceConfig
    from edge.train.distributed import Processes
    from edge.train.evaluate import Evaluation
    from edge.train.events import OnEvent
    from edge.train.loop import LoopResult
    from edge.train.model.loading import Trainable
    from edge.train.run_folder import RunFolder


@dataclass(frozen=True)
class RunOutcome:
    """The final evaluation and the content of training.json."""

    evaluation: Evaluation
    record: dict[str, Any]
    warnings: list[str]


class TrainingRun:
    """The steps of a run: model, data, training, evaluation, output.

    Args:
        config: What to train.
        device_config: Where to train.
        splits: The rows.
        run: The open run folder.
        work_dir: An empty folder for temporary files.
        on_event: Is called with each event, in the main process.
        processes: All processes that train together.
    """

    def __init__(
        self,
        config: ResolvedTrainConfig,
        device_config: DeviceConfig,
        splits: Splits,
        run: RunFolder,
        work_dir: Path,
        on_event: OnEvent,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self._config, self._reasons = config.for_rows(len(splits.train))
        self._device_config = device_config
        self._splits = splits
        self._run = run
        self._work_dir = work_dir
        self._processes = processes
        listeners = [on_event, run.log.on_event] if processes.is_main else []
        if config.tensorboard and processes.is_main:
            from edge.train.output.curves import TensorBoardLog

            listeners.append(TensorBoardLog(run.path / "tensorboard").on_event)
        self._events = EventDispatcher(listeners)

    def train(self) -> RunOutcome:
        """Run all steps and write the model folder.

        Raises:
            EdgeError: As `edge.train.train`.
        """
        config, processes, events = self._config, self._processes, self._events
        events.warn(self._splits.warnings)
        trainable, checkpoint, fingerprint = self._open()
        pairs = self._fit_rows(trainable)
        teacher = self._distill(trainable, pairs)
        if config.method != "full":
            add_adapter(trainable, config)
        train_rows, dev_rows = self._tokenize(trainable, pairs)
        details = run_details(
            config, self._device_config, self._splits, trainable, processes.world_size
        )
        events(Event("start", details=details, reasons=self._reasons))
        evaluator = DevEvaluator(config, trainable, dev_rows, events, processes)
        depths = DepthReport(evaluator.evaluate, self._device_config.device)
        if teacher is not None:
            depths.measure("cut, not yet trained", trainable.model)
        loop = self._loop(trainable, teacher, train_rows, evaluator, fingerprint, checkpoint)
        if config.method != "full":
            self._merge_adapter(trainable)
        start = time.monotonic()
        evaluation = evaluator.evaluate()
        seconds = time.monotonic() - start
        record = training_record(
            config, self._splits, trainable, loop, evaluation, seconds, details
        )
        if teacher is not None:
            depths.add("distilled", trainable.model, evaluation)
            depths.measure("full", teacher)
            record["depth"] = depths.rows
        self._write(trainable, record)
        return RunOutcome(evaluation, record, events.warnings)

    def _open(self) -> tuple[Trainable, SavedState | None, dict[str, object]]:
        """Model and tokenizer, the checkpoint to resume from, and the run's fingerprint."""
        self._events.stage("preparing model and tokenizer")
        trainable = open_model(
            self._config, texts_of(self._splits.train), self._work_dir, texts_of(self._splits.dev)
        )
        self._events.warn(trainable.warnings)
        for note in trainable.notes:
            self._events(Event("note", note))
        fingerprint = run_fingerprint(self._config, trainable, self._splits)
        require_same_fingerprint(fingerprint, self._processes)
        checkpoint = None
        if self._config.resume:
            checkpoint = state_to_resume(
                self._run.checkpoints, fingerprint, self._processes, self._events
            )
        return trainable, checkpoint, fingerprint

    def _fit_rows(self, trainable: Trainable) -> list[Pair]:
        """The training pairs after --long."""
        pairs, messages = fit_rows(
            self._splits.train,
            trainable.tokenizer,
            policy=self._config.long,
            max_source_length=self._config.max_source_length,
            max_target_length=self._config.max_target_length,
        )
        self._events.warn(messages)
        return pairs

    def _distill(self, trainable: Trainable, pairs: list[Pair]) -> PreTrainedModel | None:
        """With --decoder-layers: remove layers of the model and add the teacher's answers to pairs.

        Returns:
            The teacher: the model with all layers.
        """
        from edge.train.model.distillation import cut_decoder, teacher_pairs

        config = self._config
        if config.decoder_layers is None:
            return None
        teacher = cut_decoder(trainable, config.decoder_layers)
        teacher.to(self._device_config.device)
        self._events.stage("generating the full model's answers")
        pairs += self._processes.broadcast(
            partial(
                teacher_pairs,
                teacher,
                trainable.tokenizer,
                list(pairs),
                generation=trainable.generation,
                end_token_ids=trainable.end_token_ids,
                max_source_length=config.max_source_length,
                max_target_length=config.max_target_length,
                batch_size=config.eval_batch_size,
            )
        )
        return teacher

    def _tokenize(self, trainable: Trainable, pairs: list[Pair]) -> tuple[Dataset, Dataset]:
        """The training and dev rows."""
        config, tokenizer = self._config, trainable.tokenizer
        limits = {
            "max_source_length": config.max_source_length,
            "max_target_length": config.max_target_length,
        }
        train_rows, messages = tokenize(pairs, tokenizer, **limits, name="training")
        dev = self._splits.dev[: config.max_eval_rows]
        dev_rows, dev_messages = tokenize(dev, tokenizer, **limits, name="dev")
        self._events.warn([*messages, *dev_messages])
        return train_rows, dev_rows

    def _loop(
        self,
        trainable: Trainable,
        teacher: PreTrainedModel | None,
        rows: Dataset,
        evaluator: DevEvaluator,
        fingerprint: dict[str, object],
        checkpoint: SavedState | None,
    ) -> LoopResult:
        from edge.train.checkpoint.manager import CheckpointManager
        from edge.train.loop import LoopContext, run_loop

        def save_snapshot(name: str) -> None:
            folder = self._run.snapshots / name
            self._processes.on_main_process(lambda: save_model(folder, trainable))

        config, events = self._config, self._events
        events.stage("training")
        context = LoopContext(
            CheckpointManager(config, self._run.checkpoints, fingerprint, events, self._processes),
            evaluator.during_training,
            save_snapshot,
            events,
            teacher,
            self._processes,
        )
        augmentation = EpochAugmentation.from_config(config, self._splits.train)
        return run_loop(
            config,
            self._device_config,
            trainable,
            rows,
            augmentation,
            self._work_dir,
            context,
            checkpoint,
        )

    def _merge_adapter(self, trainable: Trainable) -> None:
        folder = self._run.path / "adapter"
        self._processes.on_main_process(lambda: save_adapter(trainable, folder))
        merge_trained(trainable, self._config, folder)

    def _write(self, trainable: Trainable, record: dict[str, Any]) -> None:
        config, events = self._config, self._events
        record["warnings"] = events.warnings
        events.stage("writing the model folder")
        events(Event("end", "finished"))
        output = Path(config.output)
        self._processes.on_main_process(
            lambda: save_output(output, trainable, record, self._run, force=config.force)
        )
