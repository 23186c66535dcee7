"""Pairs of texts as token ids, cut to the maximum lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge.runtime.printing import shorten
from edge.runtime.text.tokenization import cut_ids
from edge.train.data.pairs import Pair

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def tokenize(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    name: str,
) -> tuple[Dataset, list[str]]:
    """Tokenize pairs and cut texts that are longer than the limits.

    Args:
        pairs: The examples.
        tokenizer: A tokenizer that appends </s>.
        max_source_length: Most tokens of an input, </s> counted.
        max_target_length: Most tokens of a target, </s> counted.
        name: The split's name, for the warnings.

    Returns:
        A data set with the columns input_ids and labels (lists of ids that end in </s>), source,
        target, task and span; and warnings about cut rows and unknown characters.
    """
    from datasets import Dataset

    sources = tokenizer([pair.source for pair in pairs], verbose=False)["input_ids"]
    targets = tokenizer([pair.target for pair in pairs], verbose=False)["input_ids"]
    warnings = [
        *_unknown_warning(pairs, targets, tokenizer, name),
        *_cut_warning(sources, max_source_length, "inputs", "--max-source-length", name),
        *_cut_warning(targets, max_target_length, "targets", "--max-target-length", name),
    ]
    eos = tokenizer.eos_token_id
    columns = {
        "input_ids": [cut_ids(ids, max_source_length, eos) for ids in sources],
        "labels": [cut_ids(ids, max_target_length, eos) for ids in targets],
        "source": [pair.source for pair in pairs],
        "target": [pair.target for pair in pairs],
        "task": [pair.task for pair in pairs],
        "span": [None if pair.span is None else list(pair.span) for pair in pairs],
    }
    return Dataset.from_dict(columns), warnings


def token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of each text, </s> counted."""
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]


def _unknown_warning(
    pairs: Sequence[Pair],
    targets: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> Iterator[str]:
    unknown = tokenizer.unk_token_id
    affected = [number for number, ids in enumerate(targets) if unknown in ids]
    if affected:
        yield (
            f"{len(affected)} of {len(pairs)} {name} targets contain characters that are not in the"
            f" model's vocabulary (they become {tokenizer.unk_token} and cannot be generated),"
            f" such as {shorten(pairs[affected[0]].target)!r}"
        )


def _cut_warning(
    texts: Sequence[list[int]], limit: int, what: str, option: str, name: str
) -> Iterator[str]:
    longest = max((len(ids) for ids in texts), default=0)
    if longest > limit:
        count = sum(len(ids) > limit for ids in texts)
        yield (
            f"{count} of {len(texts)} {name} {what} are longer than {limit} tokens and are cut"
            f" ({option}; the longest has {longest})"
        )
