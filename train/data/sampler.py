"""The training rows of each epoch, and the batches in which they are trained on.

An epoch depends on the seed and its number alone, so that a run can be resumed within an epoch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edge.runtime.text.tokenization import cut_ids
from edge.train.data.bucketing import (
    Batch,
    Lengths,
    Padding,
    measure_padding,
    plan_batches,
    plan_fixed_count,
)
from edge.train.data.collator import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edge.train.config import ResolvedTrainConfig

NO_ROW = -1  # row number of an empty row: it has no labels, so nothing is learned from it


class Augmentation(Protocol):
    """Random changes to the texts of rows that are different in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Reset the random generators to the start of this epoch."""

    def augment(
        self, source: str, target: str, span: Sequence[int] | None
    ) -> tuple[str, str] | None:
        """New source and target, or None if the row stays unchanged.

        `span` is the start and end of the row's own input within `source`, if known.
        """


@dataclass(frozen=True)
class BatchPartition:
    """Splits a batch among processes, and a process's rows into micro-batches.

    The gradients of all micro-batches add up, so a step learns the same however it is split.
    """

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1

    def split(self, batch: Batch) -> list[Batch]:
        """The rows of each micro-batch of this process; an empty one holds `NO_ROW` alone."""
        stride = self.world_size * self.micro_batches
        starts = range(self.rank, self.rank + stride, self.world_size)
        return [batch[start::stride] or [NO_ROW] for start in starts]


class EpochDataset:
    """A data set of tokenized rows whose texts are augmented again in every epoch.

    Rows are augmented before batches are made, because augmentation changes their lengths.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_source_length: int,
        max_target_length: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._original = list(rows)
        self._tokenizer = tokenizer
        self._augmentation = augmentation
        self._rows = self._original
        self.limits = (max_source_length, max_target_length)

    @property
    def is_augmented(self) -> bool:
        """Whether rows differ from epoch to epoch."""
        return self._augmentation is not None

    @property
    def lengths(self) -> Lengths:
        """Tokens of the input and target of each row in this epoch."""
        return [(len(row["input_ids"]), len(row["labels"])) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number == NO_ROW:
            return {"input_ids": [self._tokenizer.eos_token_id], "labels": [IGNORED_LABEL]}
        return self._rows[number]

    def set_epoch(self, epoch: int) -> None:
        """Switch to the rows of an epoch, counted from 0."""
        if self._augmentation is None:
            return
        self._augmentation.set_epoch(epoch)
        self._rows = list(self._original)
        augmented: dict[int, tuple[str, str]] = {}
        for number, row in enumerate(self._original):
            texts = self._augmentation.augment(row["source"], row["target"], row.get("span"))
            if texts is not None:
                augmented[number] = texts
        if not augmented:
            return
        columns = [
            self._tokenizer(list(texts), verbose=False)["input_ids"]
            for texts in zip(*augmented.values(), strict=True)
        ]
        eos = self._tokenizer.eos_token_id
        for number, source, target in zip(augmented, *columns, strict=True):
            self._rows[number] = {
                "input_ids": cut_ids(source, self.limits[0], eos),
                "labels": cut_ids(target, self.limits[1], eos),
            }


class LengthGroupedBatchSampler:
    """A batch sampler that groups rows of similar length; every row occurs once per epoch.

    A batch has `batch_size` rows, or at most `tokens` padded tokens. All epochs have equally many
    batches. Their order is random, and so is which rows of equal length go into which batch.
    """

    def __init__(
        self, rows: EpochDataset, *, seed: int, batch_size: int | None, tokens: int | None
    ) -> None:
        self._rows = rows
        self._seed = seed
        self._batch_size = batch_size
        self._tokens = tokens
        self.epoch = 0  # that the next `iter` yields; set it to resume
        rows.set_epoch(0)
        self._plan = plan_batches(rows.lengths, rows=batch_size, tokens=tokens)
        self.padding: Padding = measure_padding(self._plan, rows.lengths, rows.limits)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def max_batch_rows(self) -> int:
        """Rows of the largest batch."""
        return max(len(batch) for batch in self._plan)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return iter(self.batches(self.epoch - 1))

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch, counted from 0; switches the data set to that epoch."""
        self._rows.set_epoch(epoch)
        lengths = self._rows.lengths
        rng = random.Random(f"{self._seed}/{epoch}")
        equal: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(lengths):
            equal.setdefault(pair, []).append(number)
        for numbers in equal.values():
            rng.shuffle(numbers)
        plan = self._plan_for(lengths)
        batches = [[equal[lengths[row]].pop() for row in batch] for batch in plan]
        rng.shuffle(batches)
        return batches

    def _plan_for(self, lengths: Lengths) -> list[Batch]:
        if not self._rows.is_augmented:
            return self._plan
        if self._tokens is None:
            return plan_batches(lengths, rows=self._batch_size)
        return plan_fixed_count(lengths, tokens=self._tokens, count=len(self._plan))


class ResumableBatchSampler:
    """`count` batches over as many epochs as they take, without the first `skipped` ones.

    A resumed run gets exactly the batches that the uninterrupted run would have got next.
    """

    def __init__(
        self,
        epochs: LengthGroupedBatchSampler,
        count: int,
        skipped: int,
        partition: BatchPartition = BatchPartition(),
    ) -> None:
        self._epochs, self._count, self._skipped = epochs, count, skipped
        self._partition = partition

    def __len__(self) -> int:
        return (self._count - self._skipped) * self._partition.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        epoch, passed = divmod(self._skipped, len(self._epochs))
        self._epochs.epoch = epoch
        left = self._count - self._skipped
        while left > 0:
            batches = list(self._epochs)[passed:][:left]
            for batch in batches:
                yield from self._partition.split(batch)
            left -= len(batches)
            passed = 0


def training_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    config: ResolvedTrainConfig,
    augmentation: Augmentation | None = None,
) -> tuple[EpochDataset, LengthGroupedBatchSampler]:
    """The data set and batch sampler for tokenized rows."""
    dataset = EpochDataset(
        rows,
        tokenizer,
        max_source_length=config.max_source_length,
        max_target_length=config.max_target_length,
        augmentation=augmentation,
    )
    sampler = LengthGroupedBatchSampler(
        dataset,
        seed=config.seed,
        batch_size=config.batch_size,
        tokens=config.tokens_per_batch,
    )
    return dataset, sampler
