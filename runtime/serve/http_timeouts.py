"""HTTP over a socket, for clients that are slow on purpose: uvicorn's protocol with time limits.

uvicorn's timeouts are for connections between requests only. Without these, a client that sends
its headers byte by byte, or never reads its response, would hold a connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_protocol(
    *, head_timeout: float, write_timeout: float, max_connections: int
) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with limits; times in seconds.

    Args:
        head_timeout: from a connection's or request's first byte to the end of its headers.
        write_timeout: how long a client may leave a full buffer unread.
        max_connections: further ones are closed as they come.
    """

    class TimedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
                return
            self._watch_head(started=True)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head(started=True)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch_head(started=bool(self.conn.trailing_data[0]))

        def _watch_head(self, *, started: bool) -> None:
            """Run the timer while a request's headers are incomplete."""
            waiting = self.conn.their_state is h11.IDLE and started
            if not waiting and self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            elif waiting and self._head_timer is None:
                self._head_timer = self.loop.call_later(head_timeout, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write_timer is None:
                self._write_timer = self.loop.call_later(write_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_write_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_write_timer()
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            super().connection_lost(exc)

        def _stop_write_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

    return TimedProtocol
