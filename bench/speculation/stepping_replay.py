"""Replay of a trained model's drafts on an artifact whose search runs in the runtime.

As in `edge.bench.speculation.replay`, the larger shape computes everything, and each token is taken
from the trained model's answer. Here the logits of that token are raised above all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.bench.speculation.replay import Replay
from edge.runtime.engines.base import Vocabulary
from edge.runtime.engines.drafting import drafted_search
from edge.runtime.engines.search import DecoderState
from edge.runtime.engines.stepping import SteppingEngine
from edge.runtime.model import load
from edge.runtime.options import GenerationOptions

_ABOVE_ALL = np.float32(1e6)


class SteppingReplay(Replay):
    """The replay of an artifact whose engine is a `SteppingEngine`."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the artifact in `folder`."""
        self._model = load(folder, threads=threads)
        assert isinstance(self._model.engine, SteppingEngine)
        self._engine = self._model.engine
        self._vocabulary = Vocabulary.of(self._model.artifact)

    def plain(self, source: Sequence[int], length: int) -> int:
        """See `Replay.plain`."""
        options = GenerationOptions(max_new_tokens=length, min_new_tokens=length)
        [[found]] = self._engine.generate([source], options)
        assert len(found.all_token_ids) == length, found
        return length

    def _follow(
        self,
        source: Sequence[int],
        answer: Sequence[int],
        draft_tokens: int,
        edited: Sequence[int] | None,
    ) -> tuple[list[int], int]:
        # `edited` has no effect: these searches have no draft head.
        state = _ScriptedState(self._engine.start([source]), answer)
        options = GenerationOptions(
            max_new_tokens=len(answer), prompt_lookup_num_tokens=draft_tokens
        )
        found = drafted_search(state, source, options, self._vocabulary)
        assert found.steps is not None
        return list(found.all_token_ids), found.steps

    def close(self) -> None:
        """See `Replay.close`."""
        self._model.close()


class _ScriptedState(DecoderState):
    """A state of one row whose logits choose the tokens of a script."""

    def __init__(self, state: DecoderState, script: Sequence[int]) -> None:
        self._state = state
        self._script = script
        self._length = 0

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        logits = self._state.advance(tokens)
        # A draft may reach past the end of the answer; these positions are never used.
        following = self._script[self._length : self._length + tokens.shape[1]]
        for place, token in enumerate(following):
            logits[0, place, token] = _ABOVE_ALL
        self._length += tokens.shape[1]
        return logits

    def reorder(self, rows: np.ndarray) -> None:
        self._state.reorder(rows)

    def truncate(self, length: int) -> None:
        self._state.truncate(length)
        self._length = length
