"""uvicorn's HTTP/1.1 protocol with time limits for slow clients and a limit of connections.

uvicorn's own timeouts apply only between requests. Without these limits, a client that sends its
headers byte by byte, or never reads its response, would hold a connection forever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_protocol(
    *, head_timeout: float, write_timeout: float, max_connections: int
) -> type[H11Protocol]:
    """Create a protocol class with limits; times are in seconds.

    Args:
        head_timeout: From the first byte of a connection or request to the end of its headers.
        write_timeout: How long a client may leave a full send buffer unread.
        max_connections: Connections beyond this number are closed at once.
    """

    class TimedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
                return
            self._update_head_timer(request_started=True)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_head_timer(request_started=True)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._update_head_timer(request_started=bool(self.conn.trailing_data[0]))

        def _update_head_timer(self, *, request_started: bool) -> None:
            """Run the timer while a request's headers are incomplete."""
            incomplete = self.conn.their_state is h11.IDLE and request_started
            if not incomplete and self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            elif incomplete and self._head_timer is None:
                self._head_timer = self.loop.call_later(head_timeout, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write_timer is None:
                self._write_timer = self.loop.call_later(write_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._cancel_write_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel_write_timer()
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            super().connection_lost(exc)

        def _cancel_write_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

    return TimedProtocol
