"""Minimal HTTP/1.1 client for load tests, with less overhead than a general one.

It keeps connections alive and sends one request at a time on each; as many are open as requests
are in flight.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

REFUSED, BROKEN = 0, -1
# As httpx: the server may close a connection that has been idle for longer.
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class Reply:
    """A reply and the seconds that it took.

    `status` is HTTP's, or REFUSED (no connection) or BROKEN (closed before a complete reply).
    """

    status: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class LoadClient:
    """Sends requests to one host; never raises for network errors (see `Reply.status`)."""

    def __init__(self, host: str, port: int, *, keep_alive: bool = True) -> None:
        self._host, self._port = host, port
        self._keep_alive = keep_alive
        # Idle connections and since when; the last is the most recent.
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def post(self, path: str, body: dict[str, Any]) -> Reply:
        """POST `body` as JSON."""
        return await self._request("POST", path, json.dumps(body).encode())

    async def get(self, path: str) -> Reply:
        """GET `path`."""
        return await self._request("GET", path, b"")

    async def _request(self, method: str, path: str, body: bytes) -> Reply:
        started = time.perf_counter()
        try:
            reader, writer = await self._connect()
        except OSError:
            return Reply(REFUSED, time.perf_counter() - started)
        try:
            connection = "keep-alive" if self._keep_alive else "close"
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\nconnection: {connection}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            content = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return Reply(BROKEN, time.perf_counter() - started)
        except asyncio.CancelledError:  # the caller hangs up
            writer.transport.abort()
            raise
        seconds = time.perf_counter() - started
        if not self._keep_alive or headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer, time.monotonic()))
        return Reply(status, seconds, headers, content)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        oldest = time.monotonic() - _IDLE_SECONDS
        while self._idle:
            reader, writer, since = self._idle.pop()
            if since >= oldest and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}
