"""What a search reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["started", "skipped", "resumed"]


@dataclass(frozen=True)
class SearchEvent:
    """One event of a search.

    Attributes:
        kind: "started" (an export or a measurement, which the next one follows), "skipped"
            (something that the search leaves out) or "resumed" (results of an earlier call).
        message: one line of text.
    """

    kind: Kind
    message: str


OnEvent = Callable[[SearchEvent], None]


def announcing(on_event: OnEvent) -> Callable[[str], None]:
    """A function that reports, by its message, that something is started."""

    def started(message: str) -> None:
        on_event(SearchEvent("started", message))

    return started
