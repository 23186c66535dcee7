"""Collators that pad tokenized rows to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED_LABEL = -100  # ignore_index of the cross-entropy


class Collator:
    """Pads tokenized rows; padded labels are -100, so that padding adds nothing to the loss.

    Args:
        tokenizer: The model's.
        multiple: The widths of inputs and labels are rounded up to a multiple of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, multiple: int = 1) -> None:
        self._pad = tokenizer.pad_token_id
        self._multiple = multiple

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask (rows, source length), labels (rows, target length)."""
        import torch

        sources = [row["input_ids"] for row in rows]
        input_ids = _padded(sources, self._pad, self._multiple)
        lengths = torch.tensor([len(ids) for ids in sources])
        mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
        return {
            "input_ids": input_ids,
            "attention_mask": mask.long(),
            "labels": _padded([row["labels"] for row in rows], IGNORED_LABEL, self._multiple),
        }


class TrainingCollator:
    """Adds decoder_input_ids (labels shifted right) to a collator's batches and counts tokens.

    Attributes:
        rows: Rows collated so far.
        tokens: Tokens of their inputs and targets, without padding.
        padded_tokens: The same with padding: what was computed.
    """

    def __init__(self, model: PreTrainedModel, collate: Collator) -> None:
        self._shift: Any = model._shift_right
        self._collate = collate
        self.rows = self.tokens = self.padded_tokens = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The collator's batch with decoder_input_ids (rows, target length)."""
        batch = self._collate(rows)
        batch["decoder_input_ids"] = self._shift(batch["labels"])
        mask, labels = batch["attention_mask"], batch["labels"]
        label_count = int((labels != IGNORED_LABEL).sum())
        if not label_count:
            return batch  # an empty batch, which only keeps this process in step with the others
        self.rows += len(rows)
        self.tokens += int(mask.sum()) + label_count
        self.padded_tokens += mask.numel() + labels.numel()
        return batch

    @property
    def padding_waste(self) -> float:
        """Ratio of padding among `padded_tokens`, 0 to 1."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def state_dict(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {"rows": self.rows, "tokens": self.tokens, "padded_tokens": self.padded_tokens}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the counts to those of `state_dict`."""
        self.rows, self.tokens = state["rows"], state["tokens"]
        self.padded_tokens = state["padded_tokens"]


def _padded(texts: Sequence[list[int]], filler: int, multiple: int) -> torch.Tensor:
    import torch

    width = -(-max(len(ids) for ids in texts) // multiple) * multiple
    return torch.tensor([ids + [filler] * (width - len(ids)) for ids in texts])
