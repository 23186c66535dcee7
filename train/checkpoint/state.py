"""Everything that decides how training goes on, as tensors and JSON, and back, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from edge.runtime.errors import EdgeError

if TYPE_CHECKING:
    from edge.train.distributed import Processes

Tensors = dict[str, torch.Tensor]


class SavedState(Protocol):
    """What a run goes on from: a checkpoint on disk, or the like in memory."""

    @property
    def step(self) -> int: ...

    def plain(self) -> dict[str, Any]: ...

    def tensors(self) -> Mapping[str, torch.Tensor]: ...


@dataclass(frozen=True)
class InMemoryState:
    """One in memory."""

    step: int
    held_tensors: Mapping[str, torch.Tensor]
    held_plain: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        return self.held_plain

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return self.held_tensors


def state_for_all(state: SavedState | None, processes: Processes) -> SavedState | None:
    """What the main process goes on from, on every process; another host may not see its disk."""
    if processes.count == 1:
        return state
    held = state is not None
    head = processes.on_main(lambda: (state.step, state.plain()) if state is not None else None)
    if head is None:
        return None
    tensors = processes.tensors_of_main(state.tensors() if state is not None else None)
    return state if held else InMemoryState(head[0], tensors, head[1])


def capture_model(model: torch.nn.Module) -> Tensors:
    """The trainable weights; the others are the base model's."""
    return {f"model.{name}": _kept(weight) for name, weight in _trained(model)}


@torch.no_grad()
def restore_model(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the weights back in place.

    Raises:
        EdgeError: the checkpoint lacks a weight or has one of another shape.
    """
    for name, weight in _trained(model):
        _copy(weight, tensors, f"model.{name}")


def capture_optimizer(optimizer: Any) -> tuple[Tensors, dict[str, Any]]:
    """Moments and the like as tensors; parameter groups and plain numbers as JSON."""
    content = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, entries in content["state"].items():
        plain[str(number)] = {}
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{number}.{key}"] = _kept(value)
            else:
                plain[str(number)][key] = value
    return tensors, {"state": plain, "groups": content["param_groups"]}


def restore_optimizer(
    optimizer: Any, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {
        int(number): dict(entries) for number, entries in plain["state"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state[int(number)][key] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


_SCHEDULER_FIELDS = ("last_epoch", "_step_count", "_last_lr", "base_lrs")


def capture_scheduler(scheduler: Any) -> dict[str, Any]:
    return {name: getattr(scheduler, name) for name in _SCHEDULER_FIELDS}


def restore_scheduler(scheduler: Any, plain: Mapping[str, Any]) -> None:
    for name in _SCHEDULER_FIELDS:
        setattr(scheduler, name, plain[name])


def capture_random() -> tuple[Tensors, dict[str, Any]]:
    """The global generators of torch (each device's), numpy and Python."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random.cuda.{number}"] = state
    if torch.backends.mps.is_available():
        tensors["random.mps"] = torch.mps.get_rng_state()
    legacy: Any = np.random.get_state(legacy=False)
    legacy["state"]["key"] = legacy["state"]["key"].tolist()
    return tensors, {"numpy": legacy, "python": python_state(random)}


def restore_random(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            if f"random.cuda.{number}" in tensors:
                torch.cuda.set_rng_state(tensors[f"random.cuda.{number}"], number)
    if torch.backends.mps.is_available() and "random.mps" in tensors:
        torch.mps.set_rng_state(tensors["random.mps"])
    numpy_state = dict(plain["numpy"])
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    numpy_state["state"] = {**numpy_state["state"], "key": key}
    np.random.set_state(numpy_state)
    set_python_state(random, plain["python"])


def capture_random_of_all(processes: Processes) -> tuple[Tensors, list[dict[str, Any]]]:
    """`capture_random` of every process, by rank."""
    tensors: Tensors = {}
    plain = []
    for rank, (own, settings) in enumerate(processes.gather(capture_random())):
        tensors |= {f"process.{rank}.{name}": tensor for name, tensor in own.items()}
        plain.append(settings)
    return tensors, plain


def restore_random_of(
    rank: int, tensors: Mapping[str, torch.Tensor], plain: list[dict[str, Any]]
) -> None:
    """Take up the chance of that process; one that is new keeps its own."""
    prefix = f"process.{rank}."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if own:
        restore_random(own, plain[rank])


def python_state(generator: Any) -> list[Any]:
    """The state of a `random.Random`, or of the module `random`, as JSON can hold it."""
    version, numbers, gauss = generator.getstate()
    return [version, list(numbers), gauss]


def set_python_state(generator: Any, state: Iterable[Any]) -> None:
    version, numbers, gauss = state
    generator.setstate((version, tuple(numbers), gauss))


class WeightAverage:
    """An exponential moving average of a model's trainable weights."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._named = _trained(model)
        self._decay = decay
        self._average: list[torch.Tensor] | None = None

    def __bool__(self) -> bool:
        return self._average is not None

    @torch.no_grad()
    def add(self) -> None:
        current = [weight.detach() for _, weight in self._named]
        if self._average is None:
            self._average = [tensor.clone() for tensor in current]
        else:
            torch._foreach_lerp_(self._average, current, 1.0 - self._decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average; does nothing before there is one."""
        for (_, weight), average in zip(self._named, self._average or [], strict=False):
            held = weight.detach().clone()
            weight.copy_(average)
            average.copy_(held)

    def capture(self) -> Tensors:
        if self._average is None:
            return {}
        pairs = zip(self._named, self._average, strict=True)
        return {f"average.{name}": _kept(tensor) for (name, _), tensor in pairs}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if not any(name.startswith("average.") for name in tensors):
            self._average = None
            return
        self._average = [torch.empty_like(weight) for _, weight in self._named]
        for (name, _), average in zip(self._named, self._average, strict=True):
            _copy(average, tensors, f"average.{name}")


def _trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


@torch.no_grad()
def _copy(target: torch.Tensor, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    if name not in tensors or tensors[name].shape != target.shape:
        raise EdgeError(f"the checkpoint does not fit the model: {name}")
    target.copy_(tensors[name])
