"""Accuracy of a quantized artifact against the float32 model, row by row on held-out rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.export.conditioning.calibration import GENERATED_TOKENS, Calibration
from edge.export.paired_tests import mcnemar_test, paired_t_test
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.model import Model
from edge.runtime.options import GenerationOptions

MIN_ROWS = 32  # fewer say too little to choose a precision by
SIGNIFICANCE = 0.05
MAX_CHANGED = 0.1  # of the answers, right or wrong
_MAX_ROWS = 128
_BATCH = 16


@dataclass(frozen=True)
class RowAccuracy:
    """A model's results on the rows: mean loss of each target, and the greedy answer."""

    losses: np.ndarray  # float64 [rows], nats per token
    answers: list[tuple[int, ...]]


@dataclass(frozen=True)
class Comparison:
    """A quantized artifact against the float32 model on the same rows.

    Attributes:
        rows: Number of rows.
        identical: Greedy answers that are the same.
        loss_difference: Mean difference of the rows' losses, in nats per token; above 0 is worse.
        loss_p: One-sided p-value of the losses being worse (paired t-test).
        answers_p: One-sided p-value of fewer answers being right (exact McNemar test).
    """

    rows: int
    identical: int
    loss_difference: float
    loss_p: float
    answers_p: float

    @property
    def is_indistinguishable(self) -> bool:
        """Whether neither test tells the artifact from float32 at the level `SIGNIFICANCE`.

        The tests say little where most answers are wrong. So no more than `MAX_CHANGED` of the
        answers may have changed, too.
        """
        changed = self.rows - self.identical
        return (
            min(self.loss_p, self.answers_p) >= SIGNIFICANCE and changed <= MAX_CHANGED * self.rows
        )

    def as_manifest(self) -> dict[str, Any]:
        """The values as the manifest records them, rounded."""
        return {
            "rows": self.rows,
            "identical": self.identical,
            "loss_difference": round(self.loss_difference, 6),
            "loss_p": round(self.loss_p, 4),
            "answers_p": round(self.answers_p, 4),
        }


class HeldOutCheck:
    """The float32 model's results on held-out rows, computed once for all artifacts."""

    def __init__(
        self, source: SourceModel, rows: Calibration, generation: GenerationOptions
    ) -> None:
        """Take the rows that fitted nothing, at most 128 of them.

        Answers have the artifacts' generation defaults, but one beam, which all formats have.
        """
        held_out = rows.held_out
        self._inputs = held_out.inputs[:_MAX_ROWS]
        self._targets = held_out.targets[:_MAX_ROWS]
        self._generated = held_out.generated
        self._source = source
        if self._generated:  # as the targets were
            generation = GenerationOptions(max_new_tokens=GENERATED_TOKENS, min_new_tokens=1)
        self._options = dataclasses.asdict(
            dataclasses.replace(
                generation,
                num_beams=1,
                num_return_sequences=1,
                do_sample=False,
                stop_strings=(),
                prompt_lookup_num_tokens=0,
            )
        )

    def __len__(self) -> int:
        return len(self._inputs)

    def prepare(self) -> None:
        """Compute the float32 model's results now, not at the first artifact."""
        self._reference  # noqa: B018 - cached

    def compare(self, model: Model) -> Comparison:
        """Compare a loaded artifact with the float32 model."""
        found = self._measure(model)
        expected = self._reference
        right, wrong = self._changes(expected, found)
        difference = found.losses - expected.losses
        return Comparison(
            rows=len(self),
            identical=sum(
                one == other for one, other in zip(expected.answers, found.answers, strict=True)
            ),
            loss_difference=float(difference.mean()),
            loss_p=paired_t_test(difference),
            answers_p=mcnemar_test(wrong, right),
        )

    @functools.cached_property
    def _reference(self) -> RowAccuracy:
        reference = TorchReference(self._source, pieces=self._source.pieces)
        scores = reference.score(self._inputs, self._targets)
        if self._generated:  # the targets are the answers, and eos
            answers = [target[:-1] for target in self._targets]
        else:
            options = GenerationOptions().override(self._options)
            answers = reference.answers(self._inputs, options)
        return _row_accuracy(scores, answers)

    def _measure(self, model: Model) -> RowAccuracy:
        scores = model.score_tokens(self._inputs, self._targets, batch_size=_BATCH)
        found = model.generate_tokens(self._inputs, batch_size=_BATCH, **self._options)
        assert isinstance(found, list)
        return _row_accuracy(scores, [one.token_ids for one in found])

    def _changes(self, expected: RowAccuracy, found: RowAccuracy) -> tuple[int, int]:
        """Answers that became right, and answers that became wrong."""
        rights = [
            [answer == tuple(target[:-1]) for answer, target in zip(a, self._targets, strict=True)]
            for a in (expected.answers, found.answers)
        ]
        pairs = list(zip(*rights, strict=True))
        return pairs.count((False, True)), pairs.count((True, False))


def _row_accuracy(scores: Sequence[np.ndarray], answers: Iterable[Sequence[int]]) -> RowAccuracy:
    losses = np.array([-float(row.mean()) for row in scores])
    return RowAccuracy(losses, [tuple(answer) for answer in answers])
