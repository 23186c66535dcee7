"""The moving average of the weights: its values, its start, and its state in a checkpoint."""

from __future__ import annotations

import torch

from edge.train.loop.averaging import WeightAverage


def steps(model: torch.nn.Module, average: WeightAverage, start: int, end: int) -> None:
    """Ten steps are a whole run; each adds 1 to the trainable weights."""
    for step in range(start, end):
        with torch.no_grad():
            model.weight += 1.0  # type: ignore[operator]
        average.update((step + 1) / 10)


def new_model() -> torch.nn.Module:
    model = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(model.weight)
    model.bias.requires_grad_(False)
    return model


def test_the_last_part_of_training_is_averaged() -> None:
    model = new_model()
    average = WeightAverage(model, ratio=0.3, decay=0.5)
    steps(model, average, 0, 6)
    assert average.state_dict() == {}
    steps(model, average, 6, 10)  # weights 7, 8, 9 and 10
    expected = ((7 * 0.5 + 8 * 0.5) * 0.5 + 9 * 0.5) * 0.5 + 10 * 0.5
    with average.applied():
        assert torch.equal(model.weight, torch.full((2, 3), expected))
    assert torch.equal(model.weight, torch.full((2, 3), 10.0))
    assert list(average.state_dict()) == ["average.weight"]  # nothing that is frozen


def test_a_restored_average_continues_with_the_same_bits() -> None:
    whole, part = new_model(), new_model()
    uninterrupted = WeightAverage(whole, ratio=1.0, decay=0.99)
    steps(whole, uninterrupted, 0, 10)
    first = WeightAverage(part, ratio=1.0, decay=0.99)
    steps(part, first, 0, 4)
    resumed = WeightAverage(part, ratio=1.0, decay=0.99)
    resumed.load_state_dict({name: t.clone() for name, t in first.state_dict().items()})
    steps(part, resumed, 4, 10)
    saved = resumed.state_dict()["average.weight"]
    assert torch.equal(saved, uninterrupted.state_dict()["average.weight"])


def test_off_is_off() -> None:
    model = new_model()
    average = WeightAverage(model, ratio=0.0, decay=0.99)
    steps(model, average, 0, 10)
    average.swap()
    assert average.state_dict() == {}
