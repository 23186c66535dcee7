"""What a batch is made of for training, and how much of it was padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.train.data import IGNORED_LABEL

if TYPE_CHECKING:
    import torch

    from edge.train.data import Collator
    from edge.train.model.loading import Trainable


class TrainingCollator:
    """A collator that adds decoder_input_ids (labels shifted right) and counts what it made.

    `rows`, `tokens` of inputs and targets, and `slots`, which are tokens and padding.
    """

    def __init__(self, trainable: Trainable, collate: Collator) -> None:
        self._shift: Any = trainable.model._shift_right
        self._collate = collate
        self.rows = self.tokens = self.slots = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._collate(rows)
        batch["decoder_input_ids"] = self._shift(batch["labels"])
        mask, labels = batch["attention_mask"], batch["labels"]
        taught = int((labels != IGNORED_LABEL).sum())
        if not taught:
            return batch  # it only keeps in step with the other processes
        self.rows += len(rows)
        self.tokens += int(mask.sum()) + taught
        self.slots += mask.numel() + labels.numel()
        return batch

    @property
    def padding_waste(self) -> float:
        """The share of padding among all slots so far, 0 to 1."""
        return 1.0 - self.tokens / self.slots if self.slots else 0.0

    def plain(self) -> dict[str, int]:
        """The counts, as a checkpoint keeps them."""
        return {"rows": self.rows, "tokens": self.tokens, "slots": self.slots}

    def restore(self, plain: dict[str, int]) -> None:
        self.rows, self.tokens, self.slots = plain["rows"], plain["tokens"], plain["slots"]
