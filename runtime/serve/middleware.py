"""ASGI middleware in front of every route: API keys, body limits, admission and the request log."""

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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.runtime.serve.errors import ApiError, to_api_error
from edge.runtime.serve.hosts import host_name, is_allowed
from edge.runtime.serve.service import Service

_LOG = logging.getLogger("edge.serve")
# No key needed: probes, and the page that asks for the key.
_PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})
# Answered under every name: probes use the machine's address.
_PROBES = frozenset({"/health", "/ready"})
# Answered while the service drains; not counted as requests.
_UNCOUNTED_PATHS = frozenset({"/health", "/ready", "/metrics"})
# A body up to this multiple of the limit is read and discarded, because a client that is still
# sending would not read the error response.
_DISCARD_FACTOR = 8


class RequestMiddleware:
    """Checks, admits and logs requests. `scope["edge"]` collects a request's values for the log."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._hosts = service.settings.allowed_hosts
        self._keys = [_digest(key.encode()) for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = _route_path(scope)
        response = _Response(scope, send)
        log_values: dict[str, Any] = scope.setdefault("edge", {})
        admitted = False
        try:
            _check_framing(scope)
            self._check_host(scope, path)
            self._check_key(scope, path)
            if path not in _UNCOUNTED_PATHS:
                self._service.begin_request()
                admitted = True
            body = await self._read_body(scope, receive)
            await self._app(scope, _replay(body, receive), response.send)
        except ApiError as error:
            log_values.setdefault("code", error.code)
            await response.send_error(error)
        except Exception as error:
            _LOG.exception("request %s failed", response.request_id)
            log_values["code"] = "internal_error"
            if response.started:
                raise
            await response.send_error(to_api_error(error))
        finally:
            if admitted:
                self._service.end_request(answered=response.complete)
            if path not in _UNCOUNTED_PATHS:
                elapsed = time.perf_counter() - started
                self._service.record_request(log_values, response.status, elapsed)
                _log(scope, response, log_values, elapsed)

    def _check_host(self, scope: Scope, path: str) -> None:
        if self._hosts is None or path in _PROBES:
            return
        host = host_name(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
        if not is_allowed(host, self._hosts):
            raise ApiError(
                421,
                "host_not_allowed",
                f"the host {host[:100]!r} is not served here. Use --allowed-host to add it",
            )

    def _check_key(self, scope: Scope, path: str) -> None:
        if not self._keys or path in _PUBLIC_PATHS:
            return
        headers = dict(scope["headers"])
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = _digest(token.strip() if kind.lower() == b"bearer" else b"")
        # Compare all keys in constant time, so that the duration reveals nothing about them.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise ApiError(
                401, "invalid_api_key", "missing or invalid API key. Send one as a bearer token"
            )

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within the limits of size and time."""
        limit = self._service.settings.max_body_bytes
        headers = dict(scope["headers"])
        length = int(headers.get(b"content-length", b"0"))  # h11 has checked that it is a number
        # Only HTTP/1 says with a header that there is a body: RFC 9112, section 6.3.
        is_http1 = str(scope.get("http_version", "1.1")).startswith("1")
        if is_http1 and not length and b"transfer-encoding" not in headers:
            return b""
        too_large = ApiError(
            413, "body_too_large", f"the request body is larger than the limit of {limit:,} bytes"
        )
        if length > _DISCARD_FACTOR * limit:
            raise too_large
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self._service.settings.body_timeout):
                more = True
                while more and size <= _DISCARD_FACTOR * limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(499, "client_left", "the body is incomplete")
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= limit:
                        body += message.get("body", b"")
        except TimeoutError:
            seconds = self._service.settings.body_timeout
            raise ApiError(
                408, "body_timeout", f"the request body did not arrive within {seconds:g} s"
            ) from None
        if size > limit:
            raise too_large
        return bytes(body)


def _check_framing(scope: Scope) -> None:
    """Refuse a request whose body has two lengths; proxies could disagree on where it ends.

    Source: RFC 9112, section 6.1.
    """
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        raise ApiError(
            400, "invalid_request", "a request must not have Content-Length and Transfer-Encoding"
        )


class _Response:
    """The response to one request, and whether it was sent completely."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.request_id = secrets.token_hex(8)
        self.status = 499  # unless there is a response, the client has left
        self.started = self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            request_id = (b"x-request-id", self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", []), request_id]}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = self.status != 499

    async def send_error(self, error: ApiError) -> None:
        # Part of the body may be unread, so the connection can't be reused.
        headers = {**error.headers, "connection": "close"}
        response = JSONResponse(error.body, error.status, headers)
        await response(self._scope, _no_message, self.send)


async def _no_message() -> Message:
    return {"type": "http.disconnect"}


def _route_path(scope: Scope) -> str:
    """The path within this app, which may be mounted under a prefix."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(prefix) if path.startswith(prefix + "/") else path


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body first, then the messages after it (a disconnect)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _log(scope: Scope, response: _Response, log_values: dict[str, Any], seconds: float) -> None:
    values = {
        "request": response.request_id,
        "path": scope["path"][:200],
        "status": response.status,
        "ms": round(seconds * 1000, 1),
        **{name: value for name, value in log_values.items() if value is not None},
    }
    # As JSON, nothing that a client sends can start a new line of the log.
    _LOG.info("%s", json.dumps(values, ensure_ascii=True))
