"""Characters of a data set that a tokenizer does not bring back, before and after --vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.train.data.pairs import Pair, texts_of
from edge.train.vocabulary import Vocabulary, resolve
from edge.train.vocabulary.lost import restored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Coverage:
    """Characters that a tokenizer loses, under a --vocabulary policy.

    Attributes:
        policy: The policy.
        message: One line about the lost characters; None if there are none.
        added: Characters that are added, with their ids.
        restored_before: Ratio of rows whose texts survive encoding and decoding, 0 to 1.
        restored: The same with the added characters.
    """

    policy: str
    message: str | None
    added: dict[str, int]
    restored_before: float
    restored: float

    def __str__(self) -> str:
        if self.message is None:
            return "the tokenizer brings back all rows"
        ratio = f"{self.restored:.1%} of the rows come back from encoding and decoding"
        if self.added:
            ratio += f", {self.restored_before:.1%} without"
        return f"{self.message}; {ratio}"


def measure_coverage(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    policy: str,
    *,
    sample: Sequence[Pair] | None = None,
) -> tuple[Coverage, Vocabulary]:
    """Apply a policy to a tokenizer, and count the rows that survive it.

    Args:
        pairs: All rows.
        tokenizer: The model's tokenizer.
        policy: "extend", "keep" or "refuse".
        sample: The rows that are counted, by default all.

    Raises:
        DataError: Characters are lost and the policy is "refuse".
    """
    counted = pairs if sample is None else sample
    vocabulary = resolve(tokenizer, texts_of(pairs), policy)
    before = _restored_ratio(counted, tokenizer) if vocabulary.lost else 1.0
    after = before
    if vocabulary.extension is not None:
        after = _restored_ratio(counted, vocabulary.tokenizer)
    return Coverage(policy, vocabulary.message, vocabulary.added, before, after), vocabulary


def _restored_ratio(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> float:
    fine = restored(texts_of(pairs), tokenizer.backend_tokenizer)
    return sum(a and b for a, b in zip(fine[::2], fine[1::2], strict=True)) / len(pairs)
