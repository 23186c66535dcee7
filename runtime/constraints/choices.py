"""A choice among given texts, as a tree of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from edge.runtime.constraints.constraint import Constraint
from edge.runtime.constraints.vocabulary import TextVocabulary
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import ConstraintError, UsageError


class _Node:
    """The tokens that may follow. `allowed` is computed once the tree is complete."""

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.ends: tuple[int, ...] = ()
        self.allowed = np.empty(0, dtype=np.int64)

    def finish(self) -> None:
        waiting = [self]
        while waiting:
            node = waiting.pop()
            node.allowed = np.array([*node.children, *node.ends], dtype=np.int64)
            waiting += node.children.values()


class Choices(Constraint):
    """One of several texts, each in the tokens that the tokenizer gives it.

    So most steps have few candidates, often a single one, which needs no decoder step of its own.

    Args:
        choices: The texts.
        vocabulary: The model's tokens.

    Raises:
        UsageError: The model can't write one of them.
    """

    def __init__(self, choices: Sequence[str], vocabulary: TextVocabulary) -> None:
        self._root = _Node()
        self._longest = 0
        self._longest_choice = ""
        self._texts: dict[tuple[int, ...], str] = {}
        ends = vocabulary.vocabulary.ends
        silent = tuple(vocabulary.silent_ends.tolist())
        rows = [ids[:-1] for ids in vocabulary.tokenizer.encode(choices)]  # without eos
        decoded = vocabulary.tokenizer.decode(rows)
        for choice, ids, text in zip(choices, rows, decoded, strict=True):
            closed = bool(ids) and ids[-1] in ends
            if text != choice or any(token in ends for token in ids[:-1]):
                raise _unwritable(choice, vocabulary)
            if not closed and not silent:
                raise UsageError(f"the choice {choice!r:.80} can't end: no end token has no text")
            self._add(ids, closed=closed, ends=silent)
            self._texts[tuple(ids)] = choice
            length = len(ids) + (not closed)
            if length > self._longest:
                self._longest, self._longest_choice = length, choice
        self._root.finish()

    def _add(self, ids: Sequence[int], *, closed: bool, ends: tuple[int, ...]) -> None:
        node = self._root
        for token in ids[:-1] if closed else ids:
            node = node.children.setdefault(token, _Node())
        node.ends = tuple({*node.ends, ids[-1]}) if closed else tuple({*node.ends, *ends})

    def matcher(self, input_ids: Sequence[int]) -> Matcher:
        """See `Constraint.matcher`."""
        return _ChoiceMatcher(self._root)

    def check_length(self, max_new_tokens: int) -> None:
        """See `Constraint.check_length`."""
        if self._longest > max_new_tokens:
            raise UsageError(
                f"the choice {self._longest_choice!r:.80} has {self._longest} tokens, its end"
                f" included: max_new_tokens must be at least that, not {max_new_tokens}"
            )

    def text(self, ids: Sequence[int]) -> str:
        """See `Constraint.text`."""
        found = self._texts.get(tuple(ids))
        return self._texts[tuple(ids[:-1])] if found is None else found


class _ChoiceMatcher(Matcher):
    def __init__(self, node: _Node) -> None:
        self._node = node

    def allowed(self) -> np.ndarray:
        return self._node.allowed

    def advance(self, token: int) -> None:
        self._node = self._node.children[token]

    def copy(self) -> Self:
        return type(self)(self._node)

    def dead_end(self) -> ConstraintError:
        return ConstraintError(
            "none of the choices can follow: this artifact gives their tokens no probability."
            " Export it without --shortlist, or with rows that hold the choices"
        )


def _unwritable(choice: str, vocabulary: TextVocabulary) -> UsageError:
    missing = vocabulary.unwritable(choice)
    reason = f"its vocabulary has no {missing!r:.80}" if missing else "its tokenizer changes it"
    return UsageError(
        f"this model can't write the choice {choice!r:.80}: {reason}. Choose another text, or"
        " extend the vocabulary with edge train --vocabulary extend"
    )
