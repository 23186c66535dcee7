"""The rows of each epoch, and the order in which they are trained on.

An epoch follows from the seed and its number alone, so that a run can be taken up in the middle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edge.train.batches import Batch, Lengths, Padding, padding_of, plan_as_many, plan_batches
from edge.train.data import cut_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edge.train.augment import Renamer
    from edge.train.config import TrainConfig


class EpochRows:
    """A dataset of tokenised rows; with a `renamer` their texts are others in every epoch.

    They are renamed before the batches are made, since a renamed row has another length.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_source_length: int,
        max_target_length: int,
        renamer: Renamer | None = None,
    ) -> None:
        self._original = list(rows)
        self._tokenizer = tokenizer
        self.limits = (max_source_length, max_target_length)
        self._renamer = renamer
        self._rows = self._original

    @property
    def varies(self) -> bool:
        return self._renamer is not None

    @property
    def lengths(self) -> Lengths:
        """Tokens of input and target of each row of the epoch."""
        return [(len(row["input_ids"]), len(row["labels"])) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._rows[number]

    def begin(self, epoch: int) -> None:
        """Make the rows those of an epoch, counted from 0."""
        if self._renamer is None:
            return
        self._renamer.begin(epoch)
        self._rows = list(self._original)
        varied: dict[int, tuple[str, str]] = {}
        for number, row in enumerate(self._original):
            texts = self._renamer.vary(row["source"], row["target"])
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
    """`count` batches out of one epoch after the other; the first `skipped` are left out.

    A run that goes on at a later step so gets the very batches that it would have got.
    """

    def __init__(self, epochs: LengthBatches, count: int, skipped: int) -> None:
        self._epochs, self._count, self._skipped = epochs, count, skipped

    def __len__(self) -> int:
        return self._count - self._skipped

    def __iter__(self) -> Iterator[Batch]:
        epoch, passed = divmod(self._skipped, len(self._epochs))
        self._epochs.epoch = epoch
        left = len(self)
        while left > 0:
            batches = list(self._epochs)[passed:][:left]
            yield from batches
            left -= len(batches)
            passed = 0


def training_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    renamer: Renamer | None,
) -> tuple[EpochRows, LengthBatches]:
    """Tokenised rows as dataset and batch sampler, as `config` (resolved) says."""
    assert config.max_source_length is not None
    dataset = EpochRows(
        rows,
        tokenizer,
        max_source_length=config.max_source_length,
        max_target_length=config.max_target_length,
        renamer=renamer,
    )
    batches = LengthBatches(
        dataset,
        seed=config.seed,
        batch_size=config.batch_size,
        tokens=config.tokens_per_batch,
    )
    return dataset, batches
