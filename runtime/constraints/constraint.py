"""The interface of a compiled constraint."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from edge.runtime.engines.matcher import Matcher


class Constraint(abc.ABC):
    """What an answer's text must be, compiled for one model. Safe to use from several threads."""

    @abc.abstractmethod
    def matcher(self, input_ids: Sequence[int]) -> Matcher:
        """The state at the start of the answer to one input.

        Raises:
            UsageError: Nothing that the model can write fits.
        """

    @abc.abstractmethod
    def check_length(self, max_new_tokens: int) -> None:
        """Check that answers fit into a number of tokens, as far as that is known.

        Raises:
            UsageError: One does not fit.
        """

    @abc.abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """The text that the constraint accepted for these tokens, the end token included."""
