"""The loss of training with a teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edge.train.model.label_loss import LabelLoss


def test_the_loss_is_least_where_the_student_says_what_the_teacher_says() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, **_: Any) -> Any:
            return self

    torch.manual_seed(0)
    taught = torch.randn(1, 3, 7)
    labels = torch.tensor([[2, 5, -100]])
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    loss = LabelLoss(0.0, Fixed(taught), distill_ratio=1.0)  # type: ignore[arg-type]
    batch = dict.fromkeys(names, torch.zeros(1, 3))
    loss.prepare(batch)
    assert loss(Fixed(taught), labels, 2).item() == pytest.approx(0.0, abs=1e-6)
    loss.prepare(batch)
    other = torch.randn(1, 3, 7)
    expected = torch.nn.functional.kl_div(
        other[0, :2].log_softmax(-1), taught[0, :2].softmax(-1), reduction="sum"
    )
    assert loss(Fixed(other), labels, 2).item() == pytest.approx(expected.item() / 2, rel=1e-5)
