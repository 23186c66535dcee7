"""Batches of rows of similar length, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence


def batches_by_length(
    lengths: Sequence[int],
    batch_size: int | None = None,
    *,
    max_tokens: int | None = None,
    longest_first: bool = False,
) -> list[list[int]]:
    """Row numbers of each batch, sorted by length; rows of equal length keep their order.

    Args:
        lengths: Length of each row, in tokens where `max_tokens` is given.
        batch_size: Most rows of a batch; None for no limit.
        max_tokens: Most tokens of a batch, padding included; a longer row is alone. None for no
            limit.
        longest_first: Whether the longest rows are in the first batch, so that a lack of memory
            shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=longest_first)
    batches: list[list[int]] = []
    for row in order:
        batch = batches[-1] if batches else []
        rows = len(batch) + 1
        longest = max(lengths[row], lengths[batch[0]]) if batch else lengths[row]
        full = (batch_size is not None and rows > batch_size) or (
            max_tokens is not None and rows * longest > max_tokens
        )
        if batch and not full:
            batch.append(row)
        else:
            batches.append([row])
    return batches
