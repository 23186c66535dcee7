"""`RemoteChat` with bad addresses, and with services that answer nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from edge.runtime import chat
from edge.runtime.chat import RemoteChat
from edge.runtime.errors import EdgeError, UsageError


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://" + "a" * 70 + ".example",
        "http://x..y",
        "http://a\r\nb",
        "http://h:99999",
        "ftp://h",
        "http://",
        "http://h:x",
    ],
)
def test_a_bad_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        RemoteChat(url)


@pytest.mark.parametrize("key", ["a\nb", "clé", "\0"])
def test_a_bad_key_is_a_usage_error(key: str) -> None:
    with pytest.raises(UsageError, match="API key"):
        RemoteChat("http://127.0.0.1:9", api_key=key)


class Service(BaseHTTPRequestHandler):
    """Answers with `models` and `events` as they are."""

    models: ClassVar[bytes] = b'{"data": [{"id": "m"}]}'
    events: ClassVar[bytes] = b""
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self._send(200, self.models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(self.status, self.events)

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.mark.parametrize(
    "events",
    [
        event({"choices": ["x"]}),
        event({"choices": 5}),
        event({"choices": [{"delta": [1]}]}),
        event([]),
        b"data: {\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        event({"error": {"message": "\x1b[2J no"}}),
        b"",
        b"data: [DONE",
        event({"choices": []}) * 500_000,
    ],
)
def test_nonsense_instead_of_an_answer(
    service: str, monkeypatch: pytest.MonkeyPatch, events: bytes
) -> None:
    monkeypatch.setattr(Service, "events", events)
    remote = RemoteChat(service)
    with pytest.raises(EdgeError) as caught:
        list(remote.ask("yes"))
    assert str(caught.value).isprintable()


def test_an_answer_that_never_ends(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_MAX_ANSWER_S", 0.0)
    monkeypatch.setattr(Service, "events", event({"choices": []}) * 3)
    with pytest.raises(EdgeError, match="endless"):
        list(RemoteChat(service).ask("yes"))


def test_control_characters_do_not_reach_the_terminal(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a\x1b[31mb\n\tc\x9b\x7f\x00é"
    events = event({"choices": [{"delta": {"content": text}}]}) + b"data: [DONE]\n\n"
    monkeypatch.setattr(Service, "events", events)
    assert "".join(RemoteChat(service).ask("yes")) == "a[31mb\n\tcé"


@pytest.mark.parametrize(
    "models",
    [b"", b"[]", b'{"data": 5}', b'{"data": [5]}', b'{"data": []}', b"[" * 100_000,
     b'{"data": [{"id": "a\\u001b"}]}'],
)  # fmt: skip
def test_nonsense_instead_of_models(
    service: str, monkeypatch: pytest.MonkeyPatch, models: bytes
) -> None:
    monkeypatch.setattr(Service, "models", models)
    with pytest.raises(EdgeError):
        RemoteChat(service)
