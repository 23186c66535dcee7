"""The reference engine's batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.options import GenerationOptions

# Of unlike lengths, the longest ones first and in between, and more than one batch.
ROWS = [
    [*(5 + place % 190 for place in range(length)), 1] for length in (200, 3, 90, 0, 400, 3, 30)
]
TARGETS = [row[: 5 + place] for place, row in enumerate(reversed(ROWS))]


@pytest.fixture(scope="module")
def reference(random_model: Callable[..., Path]) -> TorchReference:
    return TorchReference(SourceModel.open(random_model()), pieces=200)


@pytest.mark.parametrize("copies", [1, 3])
def test_answers_keep_the_order_of_the_rows(reference: TorchReference, copies: int) -> None:
    options = GenerationOptions(max_new_tokens=8, num_beams=copies, num_return_sequences=copies)
    alone = [answer for row in ROWS for answer in reference.answers([row], options)]
    assert len(alone) == copies * len(ROWS)
    assert reference.answers(ROWS, options) == alone


def test_sampling_leaves_the_caller_s_random_state(reference: TorchReference) -> None:
    import torch

    options = GenerationOptions(max_new_tokens=8, do_sample=True, seed=3)
    state = torch.random.get_rng_state()
    answers = reference.answers(ROWS[:2], options)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert reference.answers(ROWS[:2], options) == answers


def test_log_probs_keep_the_order_of_the_rows(reference: TorchReference) -> None:
    alone = [
        reference.log_probs([row], [target])[0] for row, target in zip(ROWS, TARGETS, strict=True)
    ]
    for one, other in zip(reference.log_probs(ROWS, TARGETS), alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
