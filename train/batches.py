"""Batches for a whole run, one epoch after the other, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from edge.train.data import IGNORED_LABEL
from edge.train.state import python_state, set_python_state

if TYPE_CHECKING:
    import torch

    from edge.train.augment import Renamer
    from edge.train.data import Collator
    from edge.train.models import Trainable


class Epochs(Protocol):
    """Gives the next epoch's batches of row numbers each time it is iterated over."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class ChainedBatches:
    """`count` batches out of one epoch after the other; the first `skipped` are left out.

    A run that goes on at a later step so gets the very batches that it would have got. `epochs`
    must be fresh and must depend on nothing but its seed.
    """

    def __init__(self, epochs: Epochs, count: int, skipped: int) -> None:
        self._epochs, self._count, self._skipped = epochs, count, skipped

    def __len__(self) -> int:
        return self._count - self._skipped

    def __iter__(self) -> Iterator[list[int]]:
        number = 0
        while number < self._count:
            for batch in self._epochs:
                if self._skipped <= number < self._count:
                    yield batch
                number += 1


class TrainingCollator:
    """A collator that adds decoder_input_ids (labels shifted right) and counts what it made."""

    def __init__(self, trainable: Trainable, collate: Collator, renamer: Renamer | None) -> None:
        self._shift: Any = trainable.model._shift_right
        self._collate = collate
        self._renamer = renamer
        self.rows = 0
        self.tokens = 0  # of inputs and targets, without padding
        self._positions = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._collate(rows)
        batch["decoder_input_ids"] = self._shift(batch["labels"])
        self.rows += len(rows)
        self.tokens += int(batch["attention_mask"].sum())
        self.tokens += int((batch["labels"] != IGNORED_LABEL).sum())
        self._positions += batch["input_ids"].numel() + batch["labels"].numel()
        return batch

    @property
    def padding_waste(self) -> float:
        """The share of padding among all positions so far, 0 to 1."""
        return 1.0 - self.tokens / self._positions if self._positions else 0.0

    def plain(self) -> dict[str, Any]:
        """The counts, and where the renamer's chance stands."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "positions": self._positions,
            "renamer": None if self._renamer is None else python_state(self._renamer.random),
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self.rows, self.tokens = plain["rows"], plain["tokens"]
        self._positions = plain["positions"]
        if self._renamer is not None:
            set_python_state(self._renamer.random, plain["renamer"])
