"""The whole state of a training loop, saved to and restored from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge.train.checkpoint.state import (
    RngState,
    Tensors,
    gather_rng_states,
    load_model_state,
    load_optimizer_state,
    load_scheduler_state,
    model_state_dict,
    optimizer_state_dict,
    require_optimizer_state,
    require_same_structure,
    rng_state,
    scheduler_state_dict,
    set_rng_state,
    set_rng_state_of_rank,
)

if TYPE_CHECKING:
    from edge.train.checkpoint.state import SavedState
    from edge.train.data.collator import TrainingCollator
    from edge.train.distributed import Processes
    from edge.train.loop.averaging import WeightAverage
    from edge.train.loop.evaluation import PeriodicEvaluation
    from edge.train.loop.progress import ProgressReporter
    from edge.train.loop.schedule import TrainingSchedule
    from edge.train.loop.snapshots import EpochSnapshots


@dataclass(frozen=True)
class _StepStart:
    """What a failed step has changed, as it was before the step."""

    rng_state: RngState
    token_counts: dict[str, int]
    losses: int


@dataclass
class TrainingState:
    """The parts of a training loop that a checkpoint holds.

    `optimizer` and `scheduler` are those of the current Trainer, None before it has begun.
    `micro_batches` is the number of passes that compute a batch; it grows when memory runs out.
    """

    model: torch.nn.Module
    average: WeightAverage
    schedule: TrainingSchedule
    collator: TrainingCollator
    reporter: ProgressReporter
    evaluation: PeriodicEvaluation
    snapshots: EpochSnapshots
    processes: Processes
    optimizer: Any = None
    scheduler: Any = None
    step: int = 0
    micro_batches: int = 1
    _step_start: _StepStart | None = None

    @property
    def learning_rate(self) -> float | None:
        """The current learning rate; None before the Trainer has begun."""
        return None if self.scheduler is None else float(self.scheduler.get_last_lr()[0])

    def state_dict(self) -> tuple[Tensors, dict[str, Any]]:
        """All tensors by name, and everything else as JSON; a collective operation."""
        optimizer_tensors, optimizer = optimizer_state_dict(self.optimizer)
        rng_tensors, rng = gather_rng_states(self.processes)
        json_state = {
            "optimizer": optimizer,
            "scheduler": scheduler_state_dict(self.scheduler),
            "rng": rng,
            "token_counts": self.total_token_counts(),
            "elapsed": self.schedule.elapsed,
            "reporter": self.reporter.state_dict(),
            "evaluation": self.evaluation.state_dict(),
            "snapshots": self.snapshots.count,
            "micro_batches": self.micro_batches,
        }
        tensors = {
            **model_state_dict(self.model),
            **optimizer_tensors,
            **rng_tensors,
            **self.average.state_dict(),
        }
        return tensors, json_state

    def load_state_dict(self, saved: SavedState) -> None:
        """Restore everything, including optimizer, scheduler and random generators.

        Raises:
            ValueError: The state does not fit the model.
        """
        tensors, json_state = saved.tensors(), saved.json_state()
        load_optimizer_state(self.optimizer, tensors, json_state["optimizer"])
        load_scheduler_state(self.scheduler, json_state["scheduler"])
        set_rng_state_of_rank(self.processes.rank, tensors, json_state["rng"])
        self._load_results(saved.step, tensors, json_state)

    def require_complete(self, saved: SavedState) -> None:
        """Check that a checkpoint holds everything that its JSON must hold; nothing is loaded.

        Raises:
            ValueError: Something is missing or is not what it should be.
        """
        expected: dict[str, Any] = {
            "token_counts": self.collator.state_dict(),
            "elapsed": 0.0,
            "reporter": {"mean_loss": None, "reported_step": 0, "loss_sum": 0.0},
            "evaluation": self.evaluation.state_dict(),
            "snapshots": 0,
            "micro_batches": 1,
            "optimizer": {"state": {}},
            "scheduler": {},
        }
        require_same_structure(saved.json_state(), expected, "state.json")

    def load_checkpoint(self, saved: SavedState) -> None:
        """As `load_state_dict`, for a state from a file.

        Raises:
            ValueError: The state does not fit the model and the optimizer.
        """
        self.load_state_dict(saved)
        require_optimizer_state(self.optimizer)

    def load_finished(self, saved: SavedState) -> None:
        """Restore what is needed after the last step: weights and results, no optimizer."""
        self._load_results(saved.step, saved.tensors(), saved.json_state())

    def _load_results(
        self, step: int, tensors: Mapping[str, torch.Tensor], json_state: Mapping[str, Any]
    ) -> None:
        load_model_state(self.model, tensors)
        self.average.load_state_dict(tensors)
        counts = json_state["token_counts"]
        # The checkpoint holds the sum over all processes: one of them continues from it.
        self.collator.load_state_dict(
            counts if self.processes.is_main else dict.fromkeys(counts, 0)
        )
        self.schedule.start(json_state["elapsed"])
        self.reporter.load_state_dict(json_state["reporter"])
        self.evaluation.load_state_dict(json_state["evaluation"])
        self.snapshots.count = json_state["snapshots"]
        self.step = step

    def total_token_counts(self) -> dict[str, int]:
        """The collator's counts, summed over all processes."""
        own = self.collator.state_dict()
        return dict(zip(own, map(int, self.processes.all_reduce_sum(*own.values())), strict=True))

    # Undoing a step that ran out of memory.

    @property
    def has_begun(self) -> bool:
        """Whether a step has begun that can be undone."""
        return self._step_start is not None

    def begin_step(self) -> None:
        """Remember what the next step will change. Several processes never undo a step."""
        if self.processes.world_size == 1:
            self._step_start = _StepStart(
                rng_state(), self.collator.state_dict(), self.reporter.loss_count
            )

    def undo_step(self) -> tuple[Tensors, dict[str, Any]]:
        """Undo what a failed step has changed; the `state_dict` from which to start it again."""
        assert self._step_start is not None
        set_rng_state(*self._step_start.rng_state)
        self.collator.load_state_dict(self._step_start.token_counts)
        self.reporter.drop_losses_after(self._step_start.losses)
        state = self.state_dict()
        self.optimizer = self.scheduler = None
        return state
