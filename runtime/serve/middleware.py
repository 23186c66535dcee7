"""In front of every route: keys, sizes, patience with slow clients, one log line a request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.runtime.serve.errors import ApiError, api_error
from edge.runtime.serve.service import Service

_LOG = logging.getLogger("edge.serve")
# What a probe, or a page that then asks for the key, must reach without one.
_OPEN = frozenset({"/", "/health", "/ready"})
# These answer while the service drains, and count as no work.
_ALWAYS = frozenset({"/health", "/ready", "/metrics"})
# So much more than the limit is read and thrown away, so that the client gets to read our answer.
_SWALLOWED = 8


class Gate:
    """ASGI middleware. A request's notes for the log are in `scope["edge"]`."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._keys = [_digest(key.encode()) for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = get_route_path(scope)
        exchange = _Exchange(scope, send)
        notes: dict[str, Any] = scope.setdefault("edge", {})
        admitted = False
        try:
            self._check_key(scope, path)
            if path not in _ALWAYS:
                self._service.enter()
                admitted = True
            body = await self._read(scope, receive)
            await self._app(scope, _replay(body, receive), exchange.send)
        except ApiError as error:
            notes.setdefault("code", error.code)
            await exchange.refuse(error)
        except Exception as error:
            _LOG.exception("request %s failed", exchange.request_id)
            notes["code"] = "internal_error"
            if exchange.started:
                raise
            await exchange.refuse(api_error(error))
        finally:
            if admitted:
                self._service.leave(answered=exchange.complete)
            if path not in _ALWAYS:
                elapsed = time.perf_counter() - started
                self._service.observe(notes, exchange.status, elapsed)
                _log(scope, exchange, notes, elapsed)

    def _check_key(self, scope: Scope, path: str) -> None:
        if not self._keys or path in _OPEN:
            return
        headers = dict(scope["headers"])
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = _digest(token.strip() if kind.lower() == b"bearer" else b"")
        # Every key is compared, in a time that tells nothing about any of them.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise ApiError(401, "invalid_api_key", "a valid API key is needed as bearer token")

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within its limits of size and time."""
        limit = self._service.settings.max_body_bytes
        headers = dict(scope["headers"])
        length = int(headers.get(b"content-length", b"0"))  # h11 has checked that it is a number
        if not length and b"transfer-encoding" not in headers:
            return b""
        too_large = ApiError(
            413, "body_too_large", f"a request's body may have {limit} bytes at most"
        )
        if length > _SWALLOWED * limit:
            raise too_large
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self._service.settings.body_timeout):
                more = True
                while more and size <= _SWALLOWED * limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(499, "client_left", "the body did not arrive whole")
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= limit:
                        body += message.get("body", b"")
        except TimeoutError:
            raise ApiError(408, "body_timeout", "the body took too long to arrive") from None
        if size > limit:
            raise too_large
        return bytes(body)


class _Exchange:
    """The response on its way out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.request_id = secrets.token_hex(8)
        self.status = 499  # until there is one: the client has left
        self.started = self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            own = (b"x-request-id", self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", []), own]}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = self.status != 499

    async def refuse(self, error: ApiError) -> None:
        # Part of the body may be unread: this connection can't carry another request.
        headers = {**error.headers, "connection": "close"}
        response = JSONResponse(error.body, error.status, headers)
        await response(self._scope, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives the body first, then whatever comes (that the client has left)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _log(scope: Scope, exchange: _Exchange, notes: dict[str, Any], seconds: float) -> None:
    values = {
        "request": exchange.request_id,
        "path": scope["path"][:200],
        "status": exchange.status,
        "ms": round(seconds * 1000, 1),
        **{name: value for name, value in notes.items() if value is not None},
    }
    # JSON: whatever a client sent can't begin a line of its own.
    _LOG.info("%s", json.dumps(values, ensure_ascii=True))
