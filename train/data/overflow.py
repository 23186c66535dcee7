"""Training rows over the maximum lengths: cut, left out, or their input dealt to several rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.runtime.errors import DataError, UsageError
from edge.train.data import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"\s*\S+")


def fit_rows(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    policy: str,
    max_source_length: int,
    max_target_length: int,
) -> tuple[list[Pair], list[str]]:
    """The rows to train on under --long `policy`, and what there is to say about it.

    "truncate" leaves them as they are, since tokenizing cuts; "drop" leaves out rows with a side
    over its limit; "chunk" makes an input over the limit into several rows, each with the prompt, a
    window of the input that ends between words, and the whole target. Targets are never dealt out:
    which part of one belongs to which window can't be known.

    Raises:
        DataError: no row is left.
        UsageError: the prompt alone fills the maximum length.
    """
    if policy == "truncate":
        return list(pairs), []
    sources = _token_counts([pair.source for pair in pairs], tokenizer)
    if policy == "chunk":
        fitted: list[Pair] = []
        count = 0
        for pair, length in zip(pairs, sources, strict=True):
            windows = [pair]
            if length > max_source_length:
                windows = _windows(pair, tokenizer, max_source_length)
                count += 1
            fitted += windows
        made = len(fitted) - len(pairs) + count
        note = f"{count} of {len(pairs)} training inputs are dealt to {made} rows (--long chunk)"
        return fitted, [note] if count else []
    targets = _token_counts([pair.target for pair in pairs], tokenizer)
    kept = [
        pair
        for pair, source, target in zip(pairs, sources, targets, strict=True)
        if source <= max_source_length and target <= max_target_length
    ]
    if not kept:
        raise DataError(
            f"all {len(pairs)} training rows are longer than {max_source_length} tokens of input or"
            f" {max_target_length} of target; raise --max-source-length or --max-target-length"
        )
    dropped = len(pairs) - len(kept)
    note = f"{dropped} of {len(pairs)} training rows are left out as too long (--long drop)"
    return kept, [note] if dropped else []


def _windows(pair: Pair, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Pair]:
    """Rows of at most `limit` tokens (but for a single word that is longer) with all of the input.

    A first guess adds up the words' own tokens; what that gets wrong, shrinking mends.
    """
    start, end = pair.span or (0, len(pair.source))
    head, text, tail = pair.source[:start], pair.source[start:end], pair.source[end:]
    room = limit - _token_counts([head + tail], tokenizer)[0]
    if room < 1:
        raise UsageError(
            f"the prompt {head + tail!r} alone fills --max-source-length {limit}; raise it"
        )
    words = _WORD.findall(text)
    costs = [count - 1 for count in _token_counts(words, tokenizer)]  # without </s>
    windows: list[Pair] = []
    at = 0
    while at < len(words):
        to, used = at + 1, costs[at]
        while to < len(words) and used + costs[to] <= room:
            used += costs[to]
            to += 1
        while True:
            part = "".join(words[at:to]).strip()
            source = head + part + tail
            if to == at + 1 or _token_counts([source], tokenizer)[0] <= limit:
                break
            to -= 1
        windows.append(Pair(source, pair.target, (start, start + len(part))))
        at = to
    return windows


def _token_counts(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of each text, </s> counted."""
    return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
