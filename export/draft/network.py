"""The network of a draft head in torch: its training, and its measurement on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.draft.examples import BATCH, Example, Progress
from edge.export.draft_head import KERNEL
from edge.runtime.inference.batching import batches_by_length

if TYPE_CHECKING:
    import torch

_HIDDEN, _DROPOUT = 128, 0.1
_EPOCHS, _LEARNING_RATE, _SEED = 4, 2e-3, 0


def _network(d_model: int, columns: int) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        """Encoder outputs [rows, d_model, length] → logits [rows, columns, length]."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(d_model, _HIDDEN, KERNEL, padding=KERNEL // 2)
            self.second = nn.Conv1d(_HIDDEN, _HIDDEN, KERNEL, padding=KERNEL // 2)
            self.output = nn.Conv1d(_HIDDEN, columns, 1)
            self.dropout = nn.Dropout(_DROPOUT)

        def forward(self, encoded: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.first(encoded))
            hidden = hidden + torch.relu(self.second(self.dropout(hidden)))
            logits: torch.Tensor = self.output(self.dropout(hidden))
            return logits

    return Network()


def fit_network(
    examples: Sequence[Example],
    phrases: Sequence[tuple[int, ...]],
    d_model: int,
    notify: Progress,
) -> Any:
    """The network, fitted to the examples' edits.

    The same examples and number of threads give the same network; torch's seed stays as it is.

    Args:
        examples: the rows.
        phrases: the insertions that it can predict.
        d_model: width of the encoder's output.
        notify: called with "fit", the steps done, and all steps.

    Returns:
        A `torch.nn.Module` in eval mode, with the layers `first`, `second` and `output`.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    rng = np.random.default_rng(_SEED)
    batches = batches_by_length([len(example.source) for example in examples], BATCH)
    steps = _EPOCHS * len(batches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = _network(d_model, 2 + len(phrases)).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
        for step in range(steps):
            if step % len(batches) == 0:
                order = rng.permutation(len(batches))
            batch = [examples[place] for place in batches[order[step % len(batches)]]]
            encoded, kept, inserted = _tensors(batch, phrases)
            logits = network(encoded)
            real = kept >= 0
            loss = binary_cross_entropy_with_logits(logits[:, 0][real], kept[real])
            loss = loss + cross_entropy(logits[:, 1:], inserted, ignore_index=-100)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            notify("fit", step + 1, steps)
    return network.eval()


def _tensors(
    batch: Sequence[Example], phrases: Sequence[tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encoder outputs, whether tokens are kept (-1: padding), and classes of insertions (-100)."""
    import torch

    classes = {phrase: place for place, phrase in enumerate([(), *phrases])}
    longest, width = max(len(example.source) for example in batch), batch[0].encoded.shape[1]
    encoded = torch.zeros(len(batch), width, longest)
    kept = torch.full((len(batch), longest), -1.0)
    inserted = torch.full((len(batch), longest), -100)
    for row, example in enumerate(batch):
        length = len(example.source)
        encoded[row, :, :length] = torch.from_numpy(example.encoded.astype(np.float32)).T
        kept[row, :length] = torch.tensor(example.edit.kept, dtype=torch.float32)
        # A rare insertion is none: the decoder makes it.
        inserted[row, :length] = torch.tensor([classes.get(p, 0) for p in example.edit.inserted])
    return encoded, kept, inserted


def measure(
    network: Any, examples: Sequence[Example], phrases: Sequence[tuple[int, ...]]
) -> dict[str, Any]:
    """On held-out rows: the ratio of right decisions to keep, and of answers right as a whole.

    Returns:
        held_out (rows), keep_accuracy and whole_answers (0 to 1).
    """
    import torch

    right = tokens = whole = 0
    for example in examples:
        encoded, kept, inserted = _tensors([example], phrases)
        with torch.inference_mode():
            logits = network(encoded)
        agrees = (logits[0, 0] > 0) == (kept[0] > 0.5)
        known = all(p == () or p in phrases for p in example.edit.inserted)
        same = bool((logits[0, 1:].argmax(dim=0) == inserted[0]).all())
        right, tokens = right + int(agrees.sum()), tokens + len(example.source)
        whole += bool(agrees.all()) and same and known
    return {
        "held_out": len(examples),
        "keep_accuracy": round(right / tokens, 4),
        "whole_answers": round(whole / len(examples), 4),
    }
