"""The rows of each epoch, and the order in which they are trained on.

An epoch follows from the seed and its number alone, so that a run can be taken up in the middle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.train.data import IGNORED_LABEL, cut_ids
from edge.train.data.bucketing import (
    Batch,
    Lengths,
    Padding,
    padding_of,
    plan_as_many,
    plan_batches,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edge.train.augment.disfluency import DisfluencyAugmenter
    from edge.train.augment.rename import Renamer
    from edge.train.config import TrainConfig


NO_ROW = -1  # stands for a row without labels, from which nothing is learned


@dataclass(frozen=True)
class Share:
    """Which part of every batch is computed here, and in how many passes.

    A batch is dealt to `count` processes, and there to `parts` passes whose gradients add up: what
    a step learns stays the same.
    """

    rank: int = 0
    count: int = 1
    parts: int = 1

    def of(self, batch: Batch) -> list[Batch]:
        """The rows of each pass. Where there are too few, a pass of no row keeps in step."""
        every = self.count * self.parts
        dealt = (batch[self.rank + self.count * part :: every] for part in range(self.parts))
        return [rows or [NO_ROW] for rows in dealt]


class EpochRows:
    """A dataset of tokenized rows, whose texts a stumbler and a renamer vary in every epoch.

    They vary before the batches are made, since a varied row has another length.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_source_length: int,
        max_target_length: int,
        renamer: Renamer | None = None,
        stumbler: DisfluencyAugmenter | None = None,
    ) -> None:
        self._original = list(rows)
        self._tokenizer = tokenizer
        self.limits = (max_source_length, max_target_length)
        self._renamer, self._stumbler = renamer, stumbler
        self._rows = self._original

    @property
    def varies(self) -> bool:
        return self._renamer is not None or self._stumbler is not None

    @property
    def lengths(self) -> Lengths:
        """Tokens of input and target of each row of the epoch."""
        return [(len(row["input_ids"]), len(row["labels"])) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number == NO_ROW:
            return {"input_ids": [self._tokenizer.eos_token_id], "labels": [IGNORED_LABEL]}
        return self._rows[number]

    def begin(self, epoch: int) -> None:
        """Make the rows those of an epoch, counted from 0."""
        if not self.varies:
            return
        for varier in (self._stumbler, self._renamer):
            if varier is not None:
                varier.begin(epoch)
        self._rows = list(self._original)
        varied: dict[int, tuple[str, str]] = {}
        for number, row in enumerate(self._original):
            texts = self._varied(row)
            if texts is not None:
                varied[number] = texts
        if not varied:
            return
        columns = [
            self._tokenizer(list(texts), verbose=False)["input_ids"]
            for texts in zip(*varied.values(), strict=True)
        ]
        eos = self._tokenizer.eos_token_id
        for number, source, target in zip(varied, *columns, strict=True):
            self._rows[number] = {
                "input_ids": cut_ids(source, self.limits[0], eos),
                "labels": cut_ids(target, self.limits[1], eos),
            }

    def _varied(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """Source and target of the row in this epoch, or None where it stays."""
        source, target = row["source"], row["target"]
        spoken = None
        if self._stumbler is not None and row["span"] is not None:
            spoken = self._stumbler.vary(source, target, row["span"])
        renamed = None
        if self._renamer is not None:
            renamed = self._renamer.vary(spoken or source, target)
        return renamed or (None if spoken is None else (spoken, target))


class LengthBatches:
    """A batch sampler: every row once an epoch, rows of like length together.

    A batch has `batch_size` rows, or at most `tokens` slots (padding counted). All epochs have
    equally many. By chance are their order and which of the rows of one length go where.
    """

    def __init__(
        self, rows: EpochRows, *, seed: int, batch_size: int | None, tokens: int | None
    ) -> None:
        self._rows = rows
        self._seed = seed
        self._batch_size = batch_size
        self._tokens = tokens
        self.epoch = 0  # the next one that `iter` gives; set it to go on in the middle of a run
        rows.begin(0)
        self._plan = plan_batches(rows.lengths, rows=batch_size, tokens=tokens)
        self.padding: Padding = padding_of(self._plan, rows.lengths, rows.limits)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def most_rows(self) -> int:
        """Of one batch."""
        return max(len(batch) for batch in self._plan)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return iter(self.order(self.epoch - 1))

    def order(self, epoch: int) -> list[Batch]:
        """The batches of one epoch, counted from 0; the rows become those of that epoch."""
        self._rows.begin(epoch)
        lengths = self._rows.lengths
        chance = random.Random(f"{self._seed}/{epoch}")
        alike: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(lengths):
            alike.setdefault(pair, []).append(number)
        for numbers in alike.values():
            chance.shuffle(numbers)
        plan = self._planned(lengths)
        batches = [[alike[lengths[row]].pop() for row in batch] for batch in plan]
        chance.shuffle(batches)
        return batches

    def _planned(self, lengths: Lengths) -> list[Batch]:
        if not self._rows.varies:
            return self._plan
        if self._tokens is None:
            return plan_batches(lengths, rows=self._batch_size)
        return plan_as_many(lengths, tokens=self._tokens, count=len(self._plan))


class ChainedBatches:
    """The `share` of `count` batches out of one epoch after the other, but the first `skipped`.

    A run that goes on at a later step so gets the very batches that it would have got.
    """

    def __init__(
        self, epochs: LengthBatches, count: int, skipped: int, share: Share = Share()
    ) -> None:
        self._epochs, self._count, self._skipped, self._share = epochs, count, skipped, share

    def __len__(self) -> int:
        return (self._count - self._skipped) * self._share.parts

    def __iter__(self) -> Iterator[Batch]:
        epoch, passed = divmod(self._skipped, len(self._epochs))
        self._epochs.epoch = epoch
        left = self._count - self._skipped
        while left > 0:
            batches = list(self._epochs)[passed:][:left]
            for batch in batches:
                yield from self._share.of(batch)
            left -= len(batches)
            passed = 0


def training_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    renamer: Renamer | None,
    stumbler: DisfluencyAugmenter | None = None,
) -> tuple[EpochRows, LengthBatches]:
    """Tokenized rows as dataset and batch sampler, as `config` (resolved) says."""
    assert config.max_source_length is not None
    dataset = EpochRows(
        rows,
        tokenizer,
        max_source_length=config.max_source_length,
        max_target_length=config.max_target_length,
        renamer=renamer,
        stumbler=stumbler,
    )
    batches = LengthBatches(
        dataset,
        seed=config.seed,
        batch_size=config.batch_size,
        tokens=config.tokens_per_batch,
    )
    return dataset, batches
