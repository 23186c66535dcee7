"""The state of a constraint while an answer is decoded: which tokens may follow."""

from __future__ import annotations

import abc
from typing import Self

import numpy as np

from edge.runtime.errors import ConstraintError

_MINUS_INFINITY = np.float32(-np.inf)


class Matcher(abc.ABC):
    """What one answer may continue with. Each beam has a copy of its own."""

    @abc.abstractmethod
    def allowed(self) -> np.ndarray:
        """The tokens that may follow: ids (int64), or a bool for each id of the vocabulary.

        An end token is among them only if the answer so far fits the constraint.

        Raises:
            ConstraintError: The constraint exceeds its limits here.
        """

    @abc.abstractmethod
    def advance(self, token: int) -> None:
        """Append an allowed token that is no end token."""

    @abc.abstractmethod
    def copy(self) -> Self:
        """An independent copy."""

    @abc.abstractmethod
    def dead_end(self) -> ConstraintError:
        """The error for an answer that nothing can follow."""

    def mask(self, scores: np.ndarray) -> np.ndarray:
        """Scores [vocab] with minus infinity for tokens that may not follow; the input is kept."""
        allowed = self.allowed()
        if allowed.dtype == np.bool_:
            return np.where(allowed, scores, _MINUS_INFINITY)
        masked = np.full_like(scores, _MINUS_INFINITY)
        masked[allowed] = scores[allowed]
        return masked

    def forced(self) -> int | None:
        """The only token that may follow, or None if there are several or none."""
        allowed = self.allowed()
        if allowed.dtype == np.bool_:
            return int(allowed.argmax()) if np.count_nonzero(allowed) == 1 else None
        return int(allowed[0]) if len(allowed) == 1 else None
