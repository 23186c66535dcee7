"""Retries with smaller micro-batches after running out of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.runtime.errors import EdgeError
from edge.train.events import Event

if TYPE_CHECKING:
    from edge.train.config import RunConfig
    from edge.train.events import OnEvent
    from edge.train.loop.callback import TrainingCallback
    from edge.train.loop.training_state import TrainingState


@dataclass(frozen=True)
class MemoryRetry:
    """Halves the micro-batches until a step fits; a step still learns from the same rows.

    Attributes:
        max_batch_rows: Rows of the largest batch of all processes.
    """

    config: RunConfig
    state: TrainingState
    callback: TrainingCallback
    max_batch_rows: int
    on_event: OnEvent

    def run(self, train: Callable[[], None]) -> None:
        """Call `train` until it has not run out of memory.

        Raises:
            EdgeError: A single row does not fit, or batches can't be halved.
        """
        # accelerate recognizes out-of-memory errors and frees what the failed attempt holds.
        from accelerate.utils import find_executable_batch_size

        find_executable_batch_size(
            lambda rows: train(),
            starting_batch_size=self._micro_batch_rows(),
            reduce_batch_size_fn=self._halve,
        )()

    def _micro_batch_rows(self) -> int:
        parts = self.state.micro_batches * self.state.processes.world_size
        return -(-self.max_batch_rows // parts)

    def _halve(self) -> int:
        """Undo the failed step and halve the micro-batches; their new number of rows."""
        state, rows = self.state, self._micro_batch_rows()
        if not state.has_begun:
            if state.processes.world_size > 1:
                raise EdgeError(
                    f"a batch of {rows} rows per process does not fit in memory, and several"
                    " processes can't halve it; lower --batch-size or --tokens-per-step and raise"
                    " --gradient-accumulation"
                )
            raise EdgeError("the model does not fit in memory, without any rows; use a smaller one")
        if rows == 1:
            raise EdgeError(
                f"step {state.step + 1} is too big for memory even row by row; lower"
                " --max-source-length, or use --preset low-memory"
            )
        state.model.zero_grad(set_to_none=True)
        self.callback.retry_step()
        state.micro_batches *= 2
        fewer = self._micro_batch_rows()
        message = (
            f"a batch of {rows} rows was too big for memory at step {state.step + 1}: it is"
            f" halved to {fewer} rows with twice the gradient accumulation"
            f" ({self.config.gradient_accumulation * state.micro_batches}); each step still learns"
            " from the same rows"
        )
        self.on_event(Event("warning", message))
        return fewer
