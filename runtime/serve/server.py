"""Server process: listening socket, uvicorn, and a shutdown that answers accepted requests."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.serve.http_timeouts import timed_protocol
from edge.runtime.serve.service import Service

_LOG = logging.getLogger("edge.serve")
_KEEP_ALIVE_S = 10
_MAX_HEAD_BYTES = 32 << 10
# Time for requests that arrive on open connections after the port has closed.
_LINGER_S = 0.5


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to the address, without listening yet. Port 0 takes a free port.

    Raises:
        UsageError: The host is unknown, or the port needs other permissions.
        EdgeError: The port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"--host {host!r} is not an address of this machine ({error.strerror})"
        ) from None
    found = socket.socket(family, kind, protocol)
    if os.name == "posix":
        # Allows a port in TIME_WAIT, but not one that a process listens on.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise EdgeError(
                f"port {port} of {host} is in use. Choose another with --port"
            ) from None
        raise UsageError(f"can't listen on {host} port {port} ({error.strerror})") from None
    return found


class DrainingServer(uvicorn.Server):
    """uvicorn server that drains on the first signal and stops on the second.

    While draining, new requests are refused with 503 and accepted ones are answered.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM."""
        if self._drain_until is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        self._drain_until = time.monotonic() + self._service.settings.drain_timeout

    async def on_tick(self, counter: int) -> bool:
        """End once the service is idle or the drain time is over. Called every 0.1 s."""
        if self._drain_until is not None:
            timed_out = time.monotonic() > self._drain_until
            if timed_out and not self._service.idle:
                _LOG.warning("the drain time is over; some requests were not answered")
            self.should_exit = self.should_exit or timed_out or self._service.idle
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, then refuse what still arrives on open connections."""
        # Connections that the kernel has accepted would be reset by closing the listener.
        pending = [connection for listener in sockets or [] for connection in _pending(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in pending:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        # Requests that arrive now get a 503 instead of a closed connection.
        until = time.monotonic() + _LINGER_S
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _pending(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections in the listener's backlog."""
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:  # this client has left; there may be others
            continue
        except OSError:
            return
        connection.setblocking(False)
        yield connection


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    head_timeout: float = 10.0,
    max_connections: int = 1024,
) -> None:
    """Serve until SIGINT or SIGTERM, and return once every accepted request is answered.

    Args:
        app: An app made by `create_app`.
        listener: A bound socket (`bind`).
        head_timeout: Seconds for a client to send its headers.
        max_connections: Connections beyond this number are closed at once.
    """
    service: Service = app.state.service
    # Requests are logged by the middleware; clients' connection errors are not worth a line.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=timed_protocol(
            head_timeout=head_timeout,
            write_timeout=service.settings.write_timeout,
            max_connections=max_connections,
        ),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        lifespan="on",
    )
    DrainingServer(config, service).run(sockets=[listener])
