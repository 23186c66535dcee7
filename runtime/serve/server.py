"""Server process: listening socket, uvicorn, and a shutdown that answers accepted requests."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
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
# Time after the drain time in which an event loop that works has ended.
_LAST_RESORT_S = 3.0


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
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of over 63 characters
        reason = getattr(error, "strerror", None) or "not a host name"
        raise UsageError(
            f"--host {host[:100]!r} is not an address of this machine ({reason})"
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

    While draining, new requests are refused with 503 and accepted ones are answered. If the drain
    time passes, they are cut. If the event loop itself hangs, a timer ends the process.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_until: float | None = None
        self._last_resort: threading.Timer | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn, also for SIGHUP unless it is ignored (nohup)."""
        with super().capture_signals():
            hangup = getattr(signal, "SIGHUP", None)  # not on Windows
            in_main_thread = threading.current_thread() is threading.main_thread()
            if not hangup or not in_main_thread or signal.getsignal(hangup) != signal.SIG_DFL:
                yield
                return
            signal.signal(hangup, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(hangup, signal.SIG_DFL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP."""
        if self._drain_until is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        seconds = self._service.settings.drain_timeout
        self._drain_until = time.monotonic() + seconds
        self._last_resort = threading.Timer(seconds + _LAST_RESORT_S, os._exit, (1,))
        self._last_resort.daemon = True
        self._last_resort.start()

    async def on_tick(self, counter: int) -> bool:
        """End once the service is idle or the drain time is over. Called every 0.1 s."""
        if self._drain_until is not None:
            timed_out = time.monotonic() > self._drain_until
            if timed_out and self._service.unanswered:
                _LOG.warning(
                    "the drain time is over; %d requests were not answered",
                    self._service.unanswered,
                )
                self._service.cut()
                self.config.timeout_graceful_shutdown = 0
            # A run that nobody waits for any more does not count.
            self.should_exit = self.should_exit or timed_out or not self._service.unanswered
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, then refuse what still arrives on open connections."""
        # Connections that the kernel has accepted would be reset by closing the listener.
        # A duplicate listens on until the last of them is accepted.
        listeners = [listener.dup() for listener in sockets or []]
        for server in self.servers:
            server.close()
        pending = [connection for listener in listeners for connection in _accept_all(listener)]
        loop = asyncio.get_running_loop()
        for connection in pending:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        # Requests that arrive now get a 503 instead of a closed connection. asyncio makes the
        # protocol of an accepted connection some turns of the loop later.
        until = time.monotonic() + _LINGER_S
        await asyncio.sleep(0.05)
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the service has stopped, without waiting for runs that never end."""
        super().run(sockets)
        if not self._service.stopped:  # after a second signal
            self._service.close(timeout=0)
        if self._last_resort is not None:
            self._last_resort.cancel()

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections in the listener's backlog, then close it."""
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:  # this client has left; there may be others
            continue
        except OSError:
            listener.close()
            return
        connection.setblocking(False)
        yield connection


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    head_timeout: float = 10.0,
    max_connections: int = 1024,
) -> bool:
    """Serve until SIGINT, SIGTERM or SIGHUP; accepted requests are answered in the drain time.

    Args:
        app: An app made by `create_app`.
        listener: A bound socket (`bind`).
        head_timeout: Seconds for a client to send its headers.
        max_connections: Connections beyond this number are closed at once.

    Returns:
        Whether all workers have ended. If not, an engine's call has not returned: its model can't
        be closed, and only `os._exit` ends the process.
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
    return service.stopped
