"""Averaging, evaluation, checkpointing and reporting between the steps of the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from edge.runtime.errors import EdgeError
from edge.train.checkpoint.state import InMemoryState, load_model_state
from edge.train.events import Event
from edge.train.loop.agreement import ProcessAgreement
from edge.train.loop.signals import StoppedError, StopRequest

if TYPE_CHECKING:
    from edge.train.checkpoint.manager import CheckpointManager
    from edge.train.checkpoint.state import SavedState
    from edge.train.config import TrainConfig
    from edge.train.events import OnEvent
    from edge.train.loop.training_state import TrainingState


class TrainingCallback(TrainerCallback):
    """Drives the parts of `TrainingState` at each step of a transformers Trainer.

    It outlives the Trainer: when a batch runs out of memory, the step is undone and a new Trainer
    continues with smaller micro-batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        checkpoints: CheckpointManager,
        on_event: OnEvent,
    ) -> None:
        self._config = config
        self._state = state
        self._checkpoints = checkpoints
        self._on_event = on_event
        self._resume_from: SavedState | None = None
        self.stop = StopRequest()
        self._agreement = ProcessAgreement(state.schedule, checkpoints, self.stop, state.processes)
        self.seconds = 0.0  # of training, once it is finished

    def resume_from(self, saved: SavedState, max_batch_rows: int) -> None:
        """Continue from the checkpoint `saved` when training begins.

        Args:
            saved: The checkpoint.
            max_batch_rows: Rows of the largest batch, for a check.

        Raises:
            CheckpointError: The checkpoint is damaged.
        """
        with self._checkpoints.reading(saved.step):
            self._state.require_complete(saved)
            micro_batches = saved.json_state()["micro_batches"]
            if not 1 <= micro_batches <= 2 * max_batch_rows:
                raise ValueError(f"micro_batches is {micro_batches}")
        self._resume_from = saved
        self._state.step = saved.step
        self._state.micro_batches = micro_batches
        self._checkpoints.resumed_from(saved.step)

    def load_finished(self, saved: SavedState) -> None:
        """Restore the weights and results of a run whose last step is done.

        Raises:
            CheckpointError: The checkpoint is damaged.
        """
        with self._checkpoints.reading(saved.step):
            self._state.load_finished(saved)

    def retry_step(self) -> None:
        """Undo a step that ran out of memory; the next Trainer begins with it."""
        tensors, json_state = self._state.undo_step()
        self._resume_from = InMemoryState(self._state.step, tensors, json_state)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the state to resume from, if there is one."""
        own = self._state
        own.optimizer, own.scheduler = kwargs["optimizer"], kwargs["lr_scheduler"]
        if self._resume_from is None:
            own.schedule.start()
            if own.processes.rank:
                # Other dropout masks than those of rank 0.
                torch.manual_seed(self._config.seed + own.processes.rank)
        else:
            if isinstance(self._resume_from, InMemoryState) and own.has_begun:
                own.load_state_dict(self._resume_from)  # of a step that ran out of memory
            else:
                with self._checkpoints.reading(self._resume_from.step):
                    own.load_checkpoint(self._resume_from)
            self._resume_from = None
            state.global_step = own.step
        self._agreement.update(own.step)
        if own.step and own.evaluation.is_due(own.step):
            self._evaluate(control)
        own.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Do what is due after an optimizer step.

        Raises:
            StoppedError: A signal asked to stop; a checkpoint is written.
            EdgeError: Training diverged.
        """
        own = self._state
        own.step = step = state.global_step
        self._agreement.update(step)
        progress = own.schedule.progress(step)
        own.average.update(progress)
        if progress >= 1.0:
            control.should_training_stop = True
        own.reporter.step_done(step, progress, own.learning_rate)
        self._stop_if_asked()
        if own.evaluation.is_due(step, is_last=control.should_training_stop):
            self._evaluate(control)
        if own.snapshots.is_due(step):
            with own.average.applied():
                own.snapshots.take(step)
        if self._agreement.is_save_due:
            self._try_to_save()
        self._agreement.update(step)
        self._stop_if_asked()
        own.begin_step()

    def _evaluate(self, control: Any) -> None:
        """Evaluate the weights that would be kept: the average, once there is one."""
        own = self._state
        with own.average.applied():
            is_best = own.evaluation.run(own.step, lambda: bool(self.stop))
        if is_best and self._config.load_best and own.schedule.progress(own.step) < 1.0:
            self._try_to_save()
        if own.evaluation.stops_early(own.step):
            control.should_training_stop = True

    def _try_to_save(self) -> None:
        own = self._state
        self._checkpoints.try_to_save(own.step, own.evaluation.best.step, own.state_dict)

    def _stop_if_asked(self) -> None:
        if not self._agreement.stop_signal:
            return
        own = self._state
        self._checkpoints.save(own.step, own.evaluation.best.step, own.state_dict)
        raise StoppedError(
            f"stopped at step {own.step}, everything is saved; continue with the same command and"
            " --resume",
            self._agreement.stop_signal,
        )

    def _load_best(self) -> None:
        """Load the best weights; if their checkpoint is damaged, those of the last step stay."""
        own, best = self._state, self._state.evaluation.best
        try:
            saved = self._checkpoints.open(best.step)
        except EdgeError as error:
            message = f"{error}; the model has the weights of the last step instead of the best"
            self._on_event(Event("warning", message))
            return
        with self._checkpoints.reading(best.step):
            tensors = saved.tensors()
            load_model_state(own.model, tensors)
            own.average.load_state_dict(tensors)
        self._on_event(Event("note", f"the best weights are of step {best.step} ({best})"))

    def finish(self) -> None:
        """Stop the clock and load the weights that the run ends with: the best or the average."""
        own = self._state
        self.seconds = own.schedule.elapsed
        if self._checkpoints.saved_step or self.seconds > self._config.save_minutes * 60 > 0:
            self._try_to_save()
        best = own.evaluation.best
        if self._config.load_best and best.value is not None and best.step != own.step:
            self._load_best()
        own.average.swap()
        own.collator.load_state_dict(own.total_token_counts())
