"""An artifact's drafts from the input, turned off while they do not pay, and on again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError
from edge.runtime.options import MAX_DRAFT_TOKENS

_BREAK_EVEN = 1.3  # tokens per step, where edge tune did not measure it
_DECAY, _PROBE_DECAY = 0.9, 0.5  # of earlier answers in the running estimate
_MIN_ANSWERS = 4  # before drafts may be turned off
_PROBE_EVERY = 32  # answers without drafts, between two that try them


@dataclass(frozen=True)
class DraftSettings:
    """The `drafts` part of a manifest's `runtime` section, which `edge tune` writes.

    Attributes:
        longest: longest draft; 0 for none.
        break_even: tokens per decoder step from which on drafts save time.
    """

    longest: int = 0
    break_even: float = _BREAK_EVEN

    @classmethod
    def of(cls, artifact: Artifact) -> DraftSettings:
        """The settings of an artifact; the defaults if it was not tuned on rows.

        Raises:
            ArtifactError: They are malformed.
        """
        found: Any = artifact.manifest.runtime.get("drafts", {})
        if cls.are_valid(found):
            return cls(
                found.get("longest", cls.longest), float(found.get("break_even", cls.break_even))
            )
        raise ArtifactError(
            f"{artifact.folder}: of runtime.drafts in edge.json, longest must be from 0 to"
            f" {MAX_DRAFT_TOKENS} and break_even from 1 to {MAX_DRAFT_TOKENS}, not {found!r:.80};"
            " run edge tune to reset it"
        )

    @classmethod
    def are_valid(cls, found: object) -> bool:
        """Whether these are settings, of which any may be left out."""
        if not isinstance(found, dict):
            return False
        longest = found.get("longest", cls.longest)
        break_even = found.get("break_even", cls.break_even)
        return (
            type(longest) is int
            and 0 <= longest <= MAX_DRAFT_TOKENS
            and type(break_even) in (int, float)
            and 1 <= break_even <= MAX_DRAFT_TOKENS
        )


class AdaptiveDrafts:
    """Follows the tokens per decoder step of a model's answers. Safe to use from several threads.

    Drafts are off while recent answers had fewer than `break_even` tokens per step. Then one answer
    in 32 tries them, so that they come back with inputs that are copied.
    """

    def __init__(self, break_even: float = _BREAK_EVEN) -> None:
        self._break_even = break_even
        self._lock = threading.Lock()
        self._tokens = self._steps = 0.0
        self._answers = 0  # that drafted
        self._without = 0  # answers since drafts were turned off
        self._on = True

    @property
    def wanted(self) -> bool:
        """Whether the next answer should draft."""
        with self._lock:
            return self._on or self._without >= _PROBE_EVERY

    def observe(self, tokens: int, steps: int | None) -> None:
        """Count an answer.

        Args:
            tokens: of the answer, its end token included.
            steps: decoder steps that it took; None if it did not draft.
        """
        with self._lock:
            if steps is None:
                self._without += not self._on
                return
            decay = _DECAY if self._on else _PROBE_DECAY
            self._tokens = decay * self._tokens + tokens
            self._steps = decay * self._steps + steps
            self._answers += 1
            self._without = 0
            pays = self._tokens >= self._break_even * self._steps
            self._on = pays or (self._on and self._answers < _MIN_ANSWERS)
