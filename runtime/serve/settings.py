"""Settings of the HTTP service."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge.runtime.errors import UsageError

_COUNTS = (
    "queue_size",
    "workers",
    "max_batch",
    "max_body_bytes",
    "max_requests",
    "max_n",
    "max_beams",
    "max_work",
)
_MIN_STUCK_S = 10.0


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the service; times are in seconds.

    The most tokens that a request may ask for is a limit of the model: load it with
    `Guardrails(max_new_tokens=…)`.

    Args:
        queue_size: Texts that may wait per model; more are refused with 429.
        workers: Runs at the same time per model. None: cores divided by the engine's threads if
            the engine computes concurrently, otherwise 1. Other engines load one copy of the
            artifact per worker.
        max_batch: Most texts of different requests per run. None: measured at the start, 1 if
            the engine gains nothing from batches.
        deadline: Most time per request. A request that would miss it is refused at once.
        max_body_bytes: Largest request body.
        body_timeout: Most time for a request's body to arrive.
        write_timeout: Most time for a client to read a piece of the response.
        max_requests: Requests in progress over all models; more are refused with 503.
        drain_timeout: How long SIGTERM waits for accepted requests.
        max_n: Most answers per text that a request may ask for.
        max_beams: Most beams that a request may ask for.
        max_work: Most tokens that a request may ask for: texts × answers or beams, whichever is
            more, × new tokens.
        allowed_hosts: Names in the Host header that are answered, without port; "*" allows all.
            None: all. A page whose name resolves to this machine could otherwise call a service
            that has no API key (DNS rebinding).
        api_keys: If not empty, requests need one of them as a bearer token.
        cors_origins: Origins whose pages may call the service.
        chat: What the model reads of a chat: the last user message or the whole conversation.
        target_ms: Target latency, for clients that compare their answers with it.
        log_content: Log inputs and answers, not only token counts.
        allow_constraints: Clients may constrain answers by choices, patterns, schemas and grammars.

    Raises:
        UsageError: A value is out of range.
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
    max_n: int = 8
    max_beams: int = 8
    max_work: int = 32_768
    allowed_hosts: tuple[str, ...] | None = None
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    chat: Literal["last", "conversation"] = "last"
    target_ms: float = 100.0
    log_content: bool = False
    allow_constraints: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name in ("deadline", "body_timeout", "write_timeout", "drain_timeout", "target_ms"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be a number above 0, not {getattr(self, name)!r}")
        if self.chat not in ("last", "conversation"):
            raise UsageError(f"chat must be 'last' or 'conversation', not {self.chat!r}")
        if not all(key.strip() == key and key.isprintable() and key for key in self.api_keys):
            raise UsageError("an API key must not be empty or have spaces around it")

    @property
    def stuck_after(self) -> float:
        """Seconds after which a run counts as one that never ends."""
        return max(_MIN_STUCK_S, 2 * self.deadline)
