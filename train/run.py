"""One training run from its rows to its folder; `edge.train.trainer` makes sure of the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import UsageError
from edge.train.checkpoint.fingerprint import identity_of
from edge.train.checkpoint.store import newest_checkpoint, require_same
from edge.train.data import Pair, tokenize
from edge.train.data.overflow import fit_rows
from edge.train.distributed import ALONE
from edge.train.events import Event
from edge.train.model.loading import open_model
from edge.train.model.lora import add_adapter, merge_trained, save_adapter
from edge.train.output.model_folder import (
    depth_row,
    run_details,
    save_model,
    save_output,
    training_record,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from edge.train.checkpoint.state import SavedState
    from edge.train.checkpoint.store import Checkpoint
    from edge.train.config import TrainConfig
    from edge.train.data import Splits
    from edge.train.device import DeviceConfig
    from edge.train.distributed import Processes
    from edge.train.evaluate import Evaluation, EvaluationOptions
    from edge.train.events import OnEvent
    from edge.train.loop import LoopResult
    from edge.train.loop.callback import Evaluate
    from edge.train.model.loading import Trainable
    from edge.train.run_folder import RunFolder


class TrainingRun:
    """One run with its folder; holds what its parts hand to each other."""

    def __init__(
        self,
        config: TrainConfig,
        machine: DeviceConfig,
        splits: Splits,
        run: RunFolder,
        workplace: Path,
        on_event: OnEvent,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.why = config.for_rows(len(splits.train))
        self.machine, self.splits, self.run, self.workplace = machine, splits, run, workplace
        self.processes = processes
        self.warnings: list[str] = []
        self._teacher: PreTrainedModel | None = None
        self._depth: list[dict[str, object]] = []
        self._listeners = [on_event, run.log.on_event] if processes.is_main else []
        if config.tensorboard and processes.is_main:
            from edge.train.output.curves import TensorBoardLog

            self._listeners.append(TensorBoardLog(run.path / "tensorboard").on_event)

    def tell(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event.message)
        for listener in self._listeners:
            listener(event)

    def warn(self, messages: list[str]) -> None:
        for message in messages:
            self.tell(Event("warning", message))

    def train(self) -> tuple[Evaluation, dict[str, object]]:
        """Do all of it; the final evaluation and the record."""
        config = self.config
        self.warn(self.splits.warnings)
        self.tell(Event("stage", "preparing model and tokenizer"))
        texts = [text for pair in self.splits.train for text in (pair.source, pair.target)]
        trainable = open_model(config, texts, self.workplace)
        self.warn(trainable.warnings)
        identity = identity_of(config, trainable, self.splits)
        self._require_alike(identity)
        checkpoint = self._checkpoint(identity)
        pairs = self._fitted(trainable)
        pairs += self._cut(trainable, pairs)
        if config.method != "full":
            add_adapter(trainable, config)
        train_rows, dev_rows = self._tokenized(trainable, pairs)
        details = run_details(config, self.machine, self.splits, trainable)
        if self.processes.count > 1:
            details["processes"] = self.processes.count
        self.tell(Event("start", details=details, reasons=self.why))
        self._compare("cut, not yet trained", trainable, dev_rows)
        loop = self._loop(trainable, train_rows, dev_rows, identity, checkpoint)
        if config.method != "full":
            self.processes.lead(lambda: save_adapter(trainable, self.run.path / "adapter"))
            merge_trained(trainable, config, self.run.path / "adapter")
        start = time.monotonic()
        evaluation = self._evaluate(trainable, dev_rows)
        seconds = time.monotonic() - start
        record = training_record(config, self.splits, trainable, loop, evaluation, seconds, details)
        if self._teacher is not None:
            self._depth.append(depth_row("distilled", trainable.model, evaluation))
            full = replace(trainable, model=self._teacher)
            self._compare("full", full, dev_rows)
            record["depth"] = self._depth
        record["warnings"] = self.warnings
        self.tell(Event("stage", "writing the model folder"))
        self.tell(Event("end", "finished"))
        output = Path(config.output)
        self.processes.lead(lambda: save_output(output, config, trainable, record, self.run))
        return evaluation, record

    def _fitted(self, trainable: Trainable) -> list[Pair]:
        """The training rows after --long."""
        config = self.config
        assert config.max_source_length is not None
        pairs, messages = fit_rows(
            self.splits.train,
            trainable.tokenizer,
            policy=config.long,
            max_source_length=config.max_source_length,
            max_target_length=config.max_target_length,
        )
        self.warn(messages)
        return pairs

    def _cut(self, trainable: Trainable, pairs: list[Pair]) -> list[Pair]:
        """With --decoder-layers: the teacher's answers, and `trainable` left with fewer layers."""
        from edge.train.model.distillation import cut_decoder, teacher_pairs

        config = self.config
        if config.decoder_layers is None:
            return []
        assert config.max_source_length is not None
        self._teacher = cut_decoder(trainable, config.decoder_layers)
        self._teacher.to(self.machine.device)
        self.tell(Event("stage", "answering as the full model"))
        ask = partial(
            teacher_pairs,
            self._teacher,
            trainable.tokenizer,
            pairs,
            max_source_length=config.max_source_length,
            max_new_tokens=config.max_target_length,
            batch_size=config.eval_batch_size,
        )
        return self.processes.on_main(ask)

    def _compare(self, which: str, trainable: Trainable, rows: Dataset) -> None:
        """Add a line to the report of accuracy against depth, if this run makes one."""
        if self._teacher is not None:
            trainable.model.to(self.machine.device)
            self._depth.append(depth_row(which, trainable.model, self._evaluate(trainable, rows)))

    def _require_alike(self, identity: dict[str, object]) -> None:
        """Refuse processes that don't see the same model, tokenizer, rows and options."""
        for rank, other in enumerate(self.processes.gather(identity)):
            names = [name for name in other if other[name] != identity[name]]
            if names:
                raise UsageError(
                    f"process {rank} sees another {' and '.join(names)} than process"
                    f" {self.processes.rank}; give all of them the same files and options"
                )

    def _checkpoint(self, identity: dict[str, object]) -> SavedState | None:
        if not self.config.resume:
            return None
        from edge.train.checkpoint.state import state_for_all

        found = self.processes.lead(lambda: self._newest(identity))
        state = state_for_all(found, self.processes)
        if state is not None:
            before = len(state.plain()["random"])
            if before != self.processes.count:
                message = (
                    f"the checkpoint is of {before} processes and this run has"
                    f" {self.processes.count}: it goes on, though not bit for bit"
                )
                self.warn([message])
        return state

    def _newest(self, identity: dict[str, object]) -> Checkpoint | None:
        checkpoint, complaints = newest_checkpoint(self.run.checkpoints)
        self.warn(complaints)
        if checkpoint is None:
            self.warn([f"{self.run.path} has no complete checkpoint: starting from the beginning"])
        else:
            require_same(checkpoint, identity)
        return checkpoint

    def _tokenized(self, trainable: Trainable, pairs: list[Pair]) -> tuple[Dataset, Dataset]:
        config, tokenizer = self.config, trainable.tokenizer
        assert config.max_source_length is not None
        limits = {
            "max_source_length": config.max_source_length,
            "max_target_length": config.max_target_length,
        }
        train_rows, messages = tokenize(pairs, tokenizer, **limits, name="training")
        dev = self.splits.dev[: config.max_eval_rows]
        dev_rows, others = tokenize(dev, tokenizer, **limits, name="dev")
        self.warn([*messages, *others])
        return train_rows, dev_rows

    def _loop(
        self,
        trainable: Trainable,
        rows: Dataset,
        dev_rows: Dataset,
        identity: dict[str, object],
        checkpoint: SavedState | None,
    ) -> LoopResult:
        from edge.train.augment.epoch import EpochAugmentation
        from edge.train.checkpoint.manager import CheckpointManager
        from edge.train.loop import LoopContext, run_loop

        config = self.config
        self.tell(Event("stage", "training"))
        around = LoopContext(
            CheckpointManager(config, self.run, identity, self.tell, self.processes),
            self._evaluator(trainable, dev_rows),
            lambda name: self._snapshot(name, trainable),
            self.tell,
            self._teacher,
            self.processes,
        )
        return run_loop(
            config,
            self.machine,
            trainable,
            rows,
            EpochAugmentation.from_config(config, self.splits.train),
            self.workplace,
            around,
            checkpoint,
        )

    def _snapshot(self, name: str, trainable: Trainable) -> None:
        folder = self.run.snapshots / name
        self.processes.lead(lambda: save_model(folder, trainable, force=True))

    def _evaluator(self, trainable: Trainable, rows: Dataset) -> Evaluate:
        """The figures that `best_metric` needs; None where `should_stop` became true meanwhile."""
        from edge.train.evaluate import StopEvaluationError, evaluate, evaluation_loss

        def run(should_stop: Callable[[], bool]) -> dict[str, float] | None:
            def look(fraction: float) -> None:
                if fraction < 1.0 and should_stop():
                    raise StopEvaluationError

            model, tokenizer = trainable.model, trainable.tokenizer
            course = self._course(look)
            try:
                if config.best_metric == "eval_loss":
                    return evaluation_loss(model, tokenizer, rows, course=course)
                return evaluate(
                    model, tokenizer, rows, max_new_tokens=config.max_target_length, course=course
                ).metrics
            except StopEvaluationError:
                return None

        config = self.config
        return run

    def _evaluate(self, trainable: Trainable, rows: Dataset) -> Evaluation:
        from edge.train.evaluate import evaluate

        self.tell(Event("stage", "evaluating"))
        return evaluate(
            trainable.model,
            trainable.tokenizer,
            rows,
            max_new_tokens=self.config.max_target_length,
            course=self._course(
                lambda fraction: self.tell(Event("progress", "evaluating", fraction))
            ),
        )

    def _course(self, on_fraction: Callable[[float], None]) -> EvaluationOptions:
        from edge.train.evaluate import EvaluationOptions

        return EvaluationOptions(
            self.config.eval_batch_size, self.processes, on_fraction, self._warn_halved
        )

    def _warn_halved(self, rows: int) -> None:
        message = (
            f"evaluation: batches of {rows} rows and more were too big for memory and are halved"
            " (--eval-batch-size)"
        )
        if message not in self.warnings:
            self.warn([message])
