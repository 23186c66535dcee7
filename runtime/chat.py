"""Chat with a loaded model, or with a service that has OpenAI's API.

Both stream their answers and measure the time to the first text and to the last. The client of a
service needs only the standard library.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.platform.json_file import parse_json
from edge.runtime.printing import printable_line, without_controls
from edge.runtime.registry import unknown_name

if TYPE_CHECKING:
    from edge.runtime.model import Model

_MAX_MESSAGES = 100
_MAX_LINE_BYTES = 1 << 20
_MAX_BODY_BYTES = 4 << 20
_MAX_ANSWER_S = 3600.0
Message = Mapping[str, str]


@dataclass(frozen=True)
class AnswerStats:
    """Latency and length of one answer.

    Attributes:
        first_ms: Milliseconds to the first text.
        total_ms: Milliseconds to the end.
        tokens: Tokens generated, or None if the service does not report them.
    """

    first_ms: float
    total_ms: float
    tokens: int | None


@dataclass
class Chat(ABC):
    """A conversation.

    Attributes:
        messages: The last messages, as {"role", "content"}.
        answers: Statistics of every answer so far.
    """

    messages: list[Message] = field(default_factory=list)
    answers: list[AnswerStats] = field(default_factory=list)

    def ask(self, text: str) -> Generator[str, None, None]:
        """Stream the answer to `text`. A complete answer becomes part of the conversation.

        Raises:
            EdgeError: The model or the service failed, or the service can't be reached.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        started = time.perf_counter()
        first: float | None = None
        pieces = []
        self._tokens: int | None = None
        with contextlib.closing(self._stream(messages)) as answer:
            for piece in answer:
                first = first if first is not None else time.perf_counter() - started
                pieces.append(piece)
                yield piece
        total = time.perf_counter() - started
        self.answers.append(
            AnswerStats((total if first is None else first) * 1000, total * 1000, self._tokens)
        )
        messages.append({"role": "assistant", "content": "".join(pieces)})
        self.messages = messages[-_MAX_MESSAGES:]

    def clear(self) -> None:
        """Delete the messages. The statistics are kept."""
        self.messages = []

    @abstractmethod
    def _stream(self, messages: Sequence[Message]) -> Generator[str, None, None]:
        """Stream the answer's text; sets `_tokens` if the number is known."""


class LocalChat(Chat):
    """Chat with a loaded model."""

    def __init__(
        self, model: Model, options: Mapping[str, Any], *, whole_conversation: bool = False
    ) -> None:
        """Check the options against the model.

        Args:
            model: The loaded artifact.
            options: Keyword arguments of `Model.generate`.
            whole_conversation: The model reads all messages, not only the last.

        Raises:
            UsageError: An option is invalid.
        """
        super().__init__()
        self._model = model
        self._options = dict(options)
        self._whole_conversation = whole_conversation
        model.generate([], **self._options)
        self._can_stream = self._options.get("num_beams", model.defaults.num_beams) == 1

    def _stream(self, messages: Sequence[Message]) -> Generator[str, None, None]:
        text = conversation_text(messages) if self._whole_conversation else messages[-1]["content"]
        if self._can_stream:
            with self._model.stream(text, **self._options) as stream:
                yield from stream
                answer = stream.result
        else:
            answer = self._model.generate(text, **self._options)
            yield answer.text
        self._tokens = answer.output_tokens


def conversation_text(messages: Sequence[Message]) -> str:
    """All messages as `role: content` lines, as `edge serve --chat conversation` reads them."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class RemoteChat(Chat):
    """Chat with a service over HTTP."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Connect to the service and list its models.

        Args:
            url: The service's address, with or without a final `/v1`.
            model: Name of the model; None takes the first one.
            api_key: Sent as bearer token.
            options: Generation options for each request.
            timeout: Seconds to wait for the service.

        Raises:
            UsageError: The URL is invalid, or there is no such model.
            EdgeError: The service can't be reached, or it has no models.
        """
        super().__init__()
        self._url = url
        self._tls, self._address, self._path = _parse_url(url)
        self._headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise UsageError("an API key must have printable ASCII characters only")
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._options = {
            "max_tokens" if name == "max_new_tokens" else name: value
            for name, value in (options or {}).items()
        }
        self.models = self._list_models()
        self.model = model or self.models[0]
        if self.model not in self.models:
            raise UsageError(unknown_name("model", self.model, tuple(self.models)))

    def _list_models(self) -> list[str]:
        with self._request("GET", "/models") as response:
            try:
                values = parse_json(response.read(_MAX_BODY_BYTES))
                names = [str(each["id"]) for each in values["data"]]
            except (ValueError, TypeError, KeyError):
                raise EdgeError(
                    f"{self._url} is not an OpenAI-compatible service: no list at /v1/models"
                ) from None
        if not names:
            raise EdgeError(f"{self._url} serves no models")
        if not all(name.isprintable() for name in names):
            raise EdgeError(f"{self._url}: a model's name has control characters")
        return names

    def _stream(self, messages: Sequence[Message]) -> Generator[str, None, None]:
        body = {
            **self._options,
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with self._request("POST", "/chat/completions", body) as response:
            for event in self._events(response):
                if isinstance(event.get("error"), dict):
                    raise EdgeError(f"{self._url}: {_shown(event['error'].get('message'))}")
                usage = event.get("usage")
                if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
                    self._tokens = usage["completion_tokens"]
                try:
                    deltas = [choice.get("delta") or {} for choice in event.get("choices") or []]
                    pieces = [delta.get("content") for delta in deltas]
                except (AttributeError, TypeError):
                    raise EdgeError(f"{self._url}: an event has an unknown form") from None
                yield from (without_controls(str(piece)) for piece in pieces if piece)

    def _events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        """Yield the data of server-sent events, up to [DONE].

        Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        size, until = 0, time.monotonic() + _MAX_ANSWER_S
        while raw := response.readline(_MAX_LINE_BYTES):
            size += len(raw)
            if size > _MAX_BODY_BYTES or time.monotonic() > until:
                raise EdgeError(f"{self._url}: the answer is endless")
            if not raw.startswith(b"data:"):
                continue
            data = raw[len(b"data:") :].strip()
            if data == b"[DONE]":
                return
            try:
                event = parse_json(data)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                raise EdgeError(f"{self._url}: an event is not a JSON object")
            yield event
        raise EdgeError(f"{self._url} closed the connection before the answer was complete")

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(*self._address, timeout=self._timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, self._path + path, data, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise EdgeError(f"{self._url}: {_error_message(response)}")
            yield response
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EdgeError(f"{self._url}: no answer ({reason})") from error
        finally:
            connection.close()


def _error_message(response: http.client.HTTPResponse) -> str:
    try:
        message = _shown(parse_json(response.read(_MAX_BODY_BYTES))["error"]["message"])
    except (ValueError, TypeError, KeyError):
        message = _shown(response.reason)
    wait = response.headers.get("retry-after", "")
    hint = f"; try again in {wait} s" if wait.isdigit() else ""
    return f"{message} (HTTP {response.status}{hint})"


def _parse_url(url: str) -> tuple[bool, tuple[str, int | None], str]:
    """Whether the URL is https, its host and port, and the path of the API.

    Raises:
        UsageError: The URL is invalid.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host = parts.hostname or ""
        host.encode("idna")  # fails for labels of over 63 characters
    except ValueError:  # UnicodeError is one
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.query or not url.isprintable():
        raise UsageError(f"--url must look like http://127.0.0.1:8080, not {url[:200]!r}")
    try:
        port = parts.port
    except ValueError:
        raise UsageError(f"--url {url[:200]!r}: the port must be from 0 to 65535") from None
    path = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
    return parts.scheme == "https", (host, port), path


def _shown(message: object) -> str:
    return printable_line(message)[:500]
