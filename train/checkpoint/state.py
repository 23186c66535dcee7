"""State of model, optimizer, scheduler and random generators as tensors and JSON, and back.

Together they decide how training goes on, so that a resumed run is bit for bit the same.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from edge.train.distributed import Processes

Tensors = dict[str, torch.Tensor]


class SavedState(Protocol):
    """A state to resume from: a checkpoint on disk or a state in memory."""

    @property
    def step(self) -> int:
        """The optimizer steps that were done."""
        ...

    def json_state(self) -> dict[str, Any]:
        """The state that is not tensors."""
        ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All tensors by name, on the CPU."""
        ...


@dataclass(frozen=True)
class InMemoryState:
    """A `SavedState` in memory."""

    step: int
    held_tensors: Mapping[str, torch.Tensor]
    held_json: dict[str, Any]

    def json_state(self) -> dict[str, Any]:
        """The state that is not tensors."""
        return self.held_json

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All tensors by name, on the CPU."""
        return self.held_tensors


def broadcast_state(state: SavedState | None, processes: Processes) -> SavedState | None:
    """The main process's `state` in every process; other hosts may not see its disk."""
    if processes.world_size == 1:
        return state
    head = processes.broadcast(
        lambda: (state.step, state.json_state()) if state is not None else None
    )
    if head is None:
        return None
    tensors = processes.broadcast_tensors(state.tensors() if state is not None else None)
    return state if state is not None else InMemoryState(head[0], tensors, head[1])


def trainable_weights(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The weights that training changes, with their names."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, contiguous and without its graph, as safetensors stores it."""
    return tensor.detach().cpu().contiguous()


def copy_weight(target: torch.Tensor, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Copy `tensors[name]` into `target`.

    Raises:
        ValueError: There is no such tensor or its shape differs.
    """
    if name not in tensors or tensors[name].shape != target.shape:
        raise ValueError(f"{name} is missing or has another shape")
    with torch.no_grad():
        target.copy_(tensors[name])


def model_state_dict(model: torch.nn.Module) -> Tensors:
    """The trainable weights; the frozen ones are those of the base model."""
    return {f"model.{name}": to_cpu(weight) for name, weight in trainable_weights(model)}


def load_model_state(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy the trainable weights back into the model.

    Raises:
        ValueError: A weight is missing or has another shape.
    """
    for name, weight in trainable_weights(model):
        copy_weight(weight, tensors, f"model.{name}")


def optimizer_state_dict(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The optimizer's tensors, such as moments, and its numbers and parameter groups as JSON."""
    content = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in content["state"].items():
        numbers[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = to_cpu(value)
            else:
                numbers[str(index)][key] = value
    return tensors, {"state": numbers, "groups": content["param_groups"]}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    json_state: Mapping[str, Any],
) -> None:
    """Load what `optimizer_state_dict` returned.

    Raises:
        ValueError: It is of an optimizer with other settings.
    """
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in json_state["state"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state[int(index)][key] = value
    _require_same_groups(json_state["groups"], optimizer)
    optimizer.load_state_dict({"state": state, "param_groups": json_state["groups"]})


def require_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimizer has a state for its weights, of the right sizes.

    Raises:
        ValueError: It has none, parts of it are missing, or a moment has another shape.
    """
    keys: dict[int, set[str]] = {}  # by the weight's dimensions: Adafactor factors matrices
    for weight, entries in optimizer.state.items():
        if entries.keys() != keys.setdefault(weight.dim(), set(entries)):
            raise ValueError("the optimizer's state is incomplete")
        for name in entries.keys() & {"exp_avg", "exp_avg_sq"}:
            if entries[name].shape != weight.shape:
                raise ValueError(f"the optimizer's {name} has another shape than its weight")
    moments = ({"exp_avg", "exp_avg_sq"}, {"state1", "state2"})  # torch's Adam, bitsandbytes'
    is_adam = "betas" in optimizer.param_groups[0]
    for names in keys.values():
        if is_adam and not any(needed <= names for needed in moments):
            raise ValueError("the optimizer's moments are missing")
    if not any(keys.values()):
        raise ValueError("the optimizer's state is empty")


def _require_same_groups(groups: Any, optimizer: torch.optim.Optimizer) -> None:
    """Reject parameter groups with other settings; only the learning rate changes in a run."""
    own = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    for group, expected in zip(json.loads(json.dumps(groups)), own, strict=True):
        for name in expected.keys() & group.keys():
            same = group[name] == expected[name]
            if not (_is_number(group[name]) if name == "lr" else same):
                raise ValueError(f"the optimizer's {name} is another")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def require_same_structure(found: Any, expected: Any, name: str) -> None:
    """Check JSON values against others of the same structure.

    Args:
        found: The values.
        expected: An object with the same keys, with lists of the same length, and values of the
            same types. None stands for a number that may be missing.
        name: What the values are, for the error message.

    Raises:
        ValueError: A value is missing, of another type, or not finite.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or not found.keys() >= expected.keys():
            raise ValueError(f"{name} lacks {', '.join(expected)}")
        for key, value in expected.items():
            require_same_structure(found[key], value, f"{name}.{key}")
        return
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            raise ValueError(f"{name} is not a list of {len(expected)}")
        for one, value in zip(found, expected, strict=True):
            require_same_structure(one, value, name)
        return
    if isinstance(expected, str):
        fits = found == expected
    elif isinstance(expected, int):
        fits = type(found) is int and 0 <= found < 2**53
    else:
        fits = _is_number(found) or (found is None and expected is None)
    if not fits:
        raise ValueError(f"{name} is {found!r:.40}")


_SCHEDULER_FIELDS = ("last_epoch", "_step_count", "_last_lr", "base_lrs")


def scheduler_state_dict(scheduler: Any) -> dict[str, Any]:
    """The position of a torch learning-rate scheduler, as JSON."""
    return {name: getattr(scheduler, name) for name in _SCHEDULER_FIELDS}


def load_scheduler_state(scheduler: Any, json_state: Mapping[str, Any]) -> None:
    """Load what `scheduler_state_dict` returned.

    Raises:
        ValueError: A field is missing or of another type.
    """
    require_same_structure(json_state, scheduler_state_dict(scheduler), "scheduler")
    for name in _SCHEDULER_FIELDS:
        setattr(scheduler, name, json_state[name])


RngState = tuple[Tensors, dict[str, Any]]


def rng_state() -> RngState:
    """The state of the global generators of torch (all devices), numpy and Python."""
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"rng.cuda.{index}"] = state
    if torch.backends.mps.is_available():
        tensors["rng.mps"] = torch.mps.get_rng_state()
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    version, numbers, gauss = random.getstate()
    return tensors, {"numpy": numpy_state, "python": [version, list(numbers), gauss]}


def set_rng_state(tensors: Mapping[str, torch.Tensor], json_state: Mapping[str, Any]) -> None:
    """Set all global generators to what `rng_state` returned."""
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"rng.cuda.{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"rng.cuda.{index}"], index)
    if torch.backends.mps.is_available() and "rng.mps" in tensors:
        torch.mps.set_rng_state(tensors["rng.mps"])
    numpy_state = dict(json_state["numpy"])
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    numpy_state["state"] = {**numpy_state["state"], "key": key}
    np.random.set_state(numpy_state)
    version, numbers, gauss = json_state["python"]
    random.setstate((version, tuple(numbers), gauss))


def gather_rng_states(processes: Processes) -> tuple[Tensors, list[dict[str, Any]]]:
    """The `rng_state` of every process: tensors prefixed with the rank, JSON by rank."""
    tensors: Tensors = {}
    json_states = []
    for rank, (own, json_state) in enumerate(processes.gather(rng_state())):
        tensors |= {f"process.{rank}.{name}": tensor for name, tensor in own.items()}
        json_states.append(json_state)
    return tensors, json_states


def set_rng_state_of_rank(
    rank: int, tensors: Mapping[str, torch.Tensor], json_states: list[dict[str, Any]]
) -> None:
    """Set the generators to the state of that rank; without one they stay as they are."""
    prefix = f"process.{rank}."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if own:
        set_rng_state(own, json_states[rank])
