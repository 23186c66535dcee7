"""What an operator sets about the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge.runtime.errors import UsageError


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the service; times in seconds.

    Args:
        queue_size: texts that may wait per artifact; more are refused with 429.
        workers: answers computed at the same time per artifact; None: as many as there are cores
            for an engine that computes concurrently, else 1. More than 1 of another engine loads
            the artifact that often.
        max_batch: most texts of different requests that are run together; None: measured at the
            start, 1 where the engine gains nothing by it.
        deadline: how long a request may take; one that can't make it is refused at once.
        max_body_bytes, body_timeout, write_timeout: of one request's body and of writing one piece
            of its response, so that a slow client holds nothing.
        max_requests: requests under way over all artifacts; more are refused with 503.
        drain_timeout: how long SIGTERM waits for accepted requests.
        api_keys: if there are any, requests need one of them as a bearer token.
        cors_origins: sites whose pages may call the service; none by default.
        chat: what a model reads of a chat: the last user message, or the whole conversation.
        target_ms: the latency that clients compare answers with.
        log_content: log inputs and answers, not only their token counts.
    """

    queue_size: int = 64
    workers: int | None = None
    max_batch: int | None = None
    deadline: float = 30.0
    max_body_bytes: int = 1 << 20
    body_timeout: float = 10.0
    write_timeout: float = 30.0
    max_requests: int = 512
    drain_timeout: float = 30.0
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    chat: Literal["last", "conversation"] = "last"
    target_ms: float = 100.0
    log_content: bool = False

    def __post_init__(self) -> None:
        for name in ("queue_size", "workers", "max_batch", "max_body_bytes", "max_requests"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name in ("deadline", "body_timeout", "write_timeout", "drain_timeout", "target_ms"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.chat not in ("last", "conversation"):
            raise UsageError(f"chat must be 'last' or 'conversation', not {self.chat!r}")
        if not all(key.strip() == key and key.isprintable() and key for key in self.api_keys):
            raise UsageError("an API key must be non-empty and without white space around it")
