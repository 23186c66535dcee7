"""An auxiliary loss for rewriting: the encoder tags the source tokens that the target keeps.

Where targets keep most of the source, as in query rewriting, a model must learn what to drop. The
cross-entropy of the labels says so only through the decoder. Tags say it for every source token, as
in text editing (Malmi et al., "Encode, Tag, Realize: High-Precision Text Editing", 2019); here the
decoder still writes the answer, and reads the tags from the encoder's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from edge.train.data.collator import IGNORED_LABEL

_SEED = 0  # of the direction, which must be the same when a training is resumed
_SCALE = 3.0  # logit of an output of size 1 in that direction


def kept_tokens(source: Sequence[int], target: Sequence[int]) -> list[bool]:
    """For each source token, whether the target keeps it.

    If a token could be one of several in the source, it is the last: "when did when was it" → "when
    was it" drops the first "when".
    """
    last = len(source)
    kept = [False] * last
    # From the end, since the matcher takes the first of equal blocks.
    matcher = SequenceMatcher(None, source[::-1], target[::-1], autojunk=False)
    for start, _, size in matcher.get_matching_blocks():
        kept[last - start - size : last - start] = [True] * size
    return kept


class TaggingLoss:
    """Cross-entropy of the tags, the mean over all source tokens of a batch.

    The logit is the encoder's output in a fixed random direction. So the loss has no weights of its
    own, and a trained model is an ordinary T5.
    """

    _mask: torch.Tensor
    _tags: torch.Tensor

    def prepare(self, inputs: dict[str, Any]) -> None:
        """Tag a batch: input_ids, attention_mask (rows, source length), labels (rows, length)."""
        input_ids, mask, labels = (inputs[n] for n in ("input_ids", "attention_mask", "labels"))
        tags: list[bool] = []
        rows = zip(input_ids.tolist(), mask.sum(dim=1).tolist(), labels.tolist(), strict=True)
        for ids, length, row_labels in rows:
            target = [label for label in row_labels if label != IGNORED_LABEL]
            tags += kept_tokens(ids[:length], target)
        self._mask = mask.bool()
        self._tags = torch.tensor(tags, dtype=torch.float32, device=input_ids.device)

    def __call__(self, outputs: Any) -> torch.Tensor:
        """The loss of the batch that was prepared."""
        encoded = outputs.encoder_last_hidden_state
        logits = encoded.float() @ _direction(encoded.shape[-1]).to(encoded.device)
        return F.binary_cross_entropy_with_logits(logits[self._mask], self._tags)


@cache
def _direction(d_model: int) -> torch.Tensor:
    """The direction of the tags, (d_model,), on the CPU."""
    direction = torch.randn(d_model, generator=torch.Generator().manual_seed(_SEED))
    return direction * (_SCALE / direction.norm())
