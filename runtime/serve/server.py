"""The process: a socket, uvicorn, and an end that answers what was accepted."""

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
_KEEP_ALIVE_SECONDS = 10
_MAX_HEAD_BYTES = 32 << 10
# After the port has closed: for requests on their way over connections that exist.
_LINGER_SECONDS = 0.5


def bind(host: str, port: int) -> socket.socket:
    """A socket for the address, which does not listen yet; port 0 takes a free one.

    Raises:
        UsageError: no such host, or no right to the port.
        EdgeError: the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"{host!r} is no address of this machine ({error.strerror})") from None
    found = socket.socket(family, kind, protocol)
    if os.name == "posix":
        # A port that a former process left in TIME_WAIT is free; one that is listened on is not.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise EdgeError(
                f"port {port} of {host} is in use; choose another with --port"
            ) from None
        raise UsageError(f"can't listen on {host} port {port} ({error.strerror})") from None
    return found


class DrainingServer(uvicorn.Server):
    """uvicorn whose first signal lets the accepted requests end, and refuses new ones meanwhile."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain_until is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        self._drain_until = time.monotonic() + self._service.settings.drain_timeout

    async def on_tick(self, counter: int) -> bool:
        if self._drain_until is not None:
            late = time.monotonic() > self._drain_until
            if late and not self._service.idle:
                _LOG.warning("not every request was answered in time; ending")
            self.should_exit = self.should_exit or late or self._service.idle
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Those that the system has accepted for us are ours: closing would reset them.
        late = [connection for listener in sockets or [] for connection in _pending(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)
        # What arrives now is refused with 503, which its client can read, not cut off.
        until = time.monotonic() + _LINGER_SECONDS
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _pending(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:  # it has left; others may be behind it
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
    """Serve until SIGINT or SIGTERM; returns when every accepted request is answered."""
    service: Service = app.state.service
    # The connections' own errors are theirs; requests are logged by us.
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
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        lifespan="on",
    )
    DrainingServer(config, service).run(sockets=[listener])
