"""Quick check whether the hub answers.

`huggingface_hub` sends its first request without a time limit, and `datasets` retries for a minute.
Names that don't resolve, closed ports and hosts that swallow packets are found out here, in
seconds.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from edge.runtime.errors import one_line
from edge.runtime.hub.errors import without_token

CONNECT_SECONDS = 4.0  # for the name, the connection and TLS
ANSWER_SECONDS = 30.0  # a slow server is not a missing one
_REMEMBER_SECONDS = 60.0

_last: tuple[float, str | None] | None = None  # when the hub was asked, and why it can't be reached


def why_unreachable(path: str) -> str | None:
    """Why the hub can't be reached, or None if it answers, whatever it answers.

    The result is remembered for a minute.

    Args:
        path: What is asked for below the hub's address, such as "/api/models/google/flan-t5-small".
    """
    global _last
    if _last is None or time.monotonic() - _last[0] > _REMEMBER_SECONDS:
        _last = (time.monotonic(), _ask(path))
    return _last[1]


def _ask(path: str) -> str | None:
    from huggingface_hub import constants, get_session

    connected = threading.Event()
    outcome: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def trace(event: str, _: Any) -> None:
        # The first event of a new connection is "connection.connect_tcp.started".
        if not event.endswith(".started") or "connect_tcp" not in event:
            connected.set()

    def request() -> None:
        try:
            get_session().get(
                f"{constants.ENDPOINT}{path}",
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS, ANSWER_SECONDS, CONNECT_SECONDS),
                extensions={"trace": trace},
            )
        except Exception as error:
            outcome.put(without_token(one_line(error, 200)) or type(error).__name__)
        else:
            outcome.put(None)
        connected.set()

    # A daemon: looking up a name can't be interrupted, and must not delay the end of the process.
    threading.Thread(target=request, name="edge-hub-check", daemon=True).start()
    if not connected.wait(CONNECT_SECONDS):
        return f"no connection within {CONNECT_SECONDS:g} s"
    try:
        return outcome.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"no answer within {ANSWER_SECONDS:g} s"
