"""Choice of the checkpoint that a run resumes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import UsageError
from edge.train.checkpoint.state import broadcast_state
from edge.train.checkpoint.store import Checkpoint, newest_checkpoint, require_same_run

if TYPE_CHECKING:
    from edge.train.checkpoint.state import SavedState
    from edge.train.distributed import Processes
    from edge.train.events import EventDispatcher


def require_same_fingerprint(fingerprint: Mapping[str, Any], processes: Processes) -> None:
    """Check that all processes see the same model, tokenizer, rows and options.

    Raises:
        UsageError: They don't; the message names what differs.
    """
    for rank, other in enumerate(processes.gather(fingerprint)):
        names = [name for name in other if other[name] != fingerprint[name]]
        if names:
            raise UsageError(
                f"process {rank} sees another {' and '.join(names)} than process"
                f" {processes.rank}; give all processes the same files and options"
            )


def state_to_resume(
    folder: Path, fingerprint: Mapping[str, Any], processes: Processes, events: EventDispatcher
) -> SavedState | None:
    """The newest valid checkpoint in `folder`, in every process; None if there is none.

    Damaged checkpoints and another number of processes are reported as warnings.

    Raises:
        UsageError: The checkpoint is of another run.
    """

    def newest() -> Checkpoint | None:
        checkpoint, damaged = newest_checkpoint(folder)
        events.warn(damaged)
        if checkpoint is None:
            events.warn([f"{folder.parent} has no complete checkpoint: starting from step 0"])
        else:
            require_same_run(checkpoint, fingerprint)
        return checkpoint

    state = broadcast_state(processes.on_main_process(newest), processes)
    if state is not None:
        rng = state.json_state().get("rng")
        before = len(rng) if isinstance(rng, list) else 0  # refused when it is applied
        if before and before != processes.world_size:
            message = (
                f"the checkpoint was written by {before} processes and this run has"
                f" {processes.world_size}: it continues, but not bit for bit the same"
            )
            events.warn([message])
    return state
