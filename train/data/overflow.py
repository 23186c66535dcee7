"""Training rows over the maximum lengths: cut, dropped, or split into several rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.runtime.errors import DataError, UsageError
from edge.train.data.pairs import Pair
from edge.train.data.tokenization import token_counts

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
    """Apply a --long policy to training rows.

    - "truncate" returns the rows unchanged, since tokenizing cuts them.
    - "drop" leaves out rows with an input or a target over its limit.
    - "chunk" splits an input over the limit into several rows. Each has the prompt, a window of the
      input that ends between words, and the whole target. Targets are never split: which part of
      a target belongs to which window is unknown.

    Returns:
        The rows to train on, and messages about what was changed.

    Raises:
        DataError: No row is left.
        UsageError: The prompt alone fills the maximum length.
    """
    if policy == "truncate":
        return list(pairs), []
    sources = token_counts([pair.source for pair in pairs], tokenizer)
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
        note = f"{count} of {len(pairs)} training inputs are split into {made} rows (--long chunk)"
        return fitted, [note] if count else []
    targets = token_counts([pair.target for pair in pairs], tokenizer)
    kept = [
        pair
        for pair, source, target in zip(pairs, sources, targets, strict=True)
        if source <= max_source_length and target <= max_target_length
    ]
    if not kept:
        raise DataError(
            f"all {len(pairs)} training rows are longer than {max_source_length} input tokens or"
            f" {max_target_length} target tokens. Raise --max-source-length or --max-target-length"
        )
    dropped = len(pairs) - len(kept)
    note = f"{dropped} of {len(pairs)} training rows are too long and dropped (--long drop)"
    return kept, [note] if dropped else []


def _windows(pair: Pair, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Pair]:
    """Rows of at most `limit` tokens that cover the whole input (a longer single word stays whole).

    Sizes a window by the sum of its words' own tokens, then shrinks it until it fits.
    """
    start, end = pair.span or (0, len(pair.source))
    head, text, tail = pair.source[:start], pair.source[start:end], pair.source[end:]
    budget = limit - token_counts([head + tail], tokenizer)[0]
    if budget < 1:
        raise UsageError(
            f"the prompt {head + tail!r} alone fills --max-source-length {limit}. Raise the limit"
            " or shorten the prompt"
        )
    words = _WORD.findall(text)
    costs = [count - 1 for count in token_counts(words, tokenizer)]  # without </s>
    windows: list[Pair] = []
    first = 0
    while first < len(words):
        last, used = first + 1, costs[first]
        while last < len(words) and used + costs[last] <= budget:
            used += costs[last]
            last += 1
        while True:
            part = "".join(words[first:last]).strip()
            source = head + part + tail
            if last == first + 1 or token_counts([source], tokenizer)[0] <= limit:
                break
            last -= 1
        windows.append(Pair(source, pair.target, (start, start + len(part))))
        first = last
    return windows
