"""What a model thinks of given targets: log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from edge.runtime.engines.base import Engine
    from edge.runtime.guardrails import OnLong
    from edge.runtime.inference.call_lock import EngineLock
    from edge.runtime.inference.pipeline import Fields
    from edge.runtime.text.tokenization import Tokenizer

BATCH_SIZE = 16


def in_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


class Scoring:
    """The scoring half of `Model`."""

    if TYPE_CHECKING:
        engine: Engine
        guard: EngineLock
        tokenizer: Tokenizer

        def encode(
            self,
            texts: Sequence[str],
            *,
            fields: Fields | Sequence[Fields] | None = None,
            on_long: OnLong | None = None,
        ) -> tuple[list[list[int]], list[bool]]: ...

        def checked_ids(self, row: Sequence[int]) -> list[int]: ...

    @overload
    def score(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        targets: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
    ) -> np.ndarray: ...

    @overload
    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> list[np.ndarray]: ...

    def score(
        self,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Log-probability (nats) of every token of the target, eos included, given the input.

        Returns a float32 array for one pair, a list of arrays for lists.
        """
        if isinstance(inputs, str) != isinstance(targets, str):
            raise UsageError("score wants two texts, or two lists of texts")
        if isinstance(inputs, str):
            assert isinstance(targets, str)
            return self.score([inputs], [targets], fields=fields, on_long=on_long)[0]
        input_ids, _ = self.encode(inputs, fields=fields, on_long=on_long)
        return self.score_tokens(input_ids, self.tokenizer.encode(targets))

    def score_tokens(
        self,
        input_ids: Sequence[Sequence[int]],
        target_ids: Sequence[Sequence[int]],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> list[np.ndarray]:
        """Like `score` for token ids; targets are without the start token."""
        if len(input_ids) != len(target_ids):
            raise UsageError(f"{len(input_ids)} inputs but {len(target_ids)} targets")
        sources = [self.checked_ids(row) for row in input_ids]
        targets = [self.checked_ids(row) for row in target_ids]
        results: list[np.ndarray] = [np.empty(0, np.float32)] * len(sources)
        for rows in in_batches(
            [len(s) + len(t) for s, t in zip(sources, targets, strict=True)], batch_size
        ):
            with self.guard.call():
                scores = self.engine.score([sources[r] for r in rows], [targets[r] for r in rows])
            for row, values in zip(rows, scores, strict=True):
                results[row] = values
        return results
