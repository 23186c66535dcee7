"""A conversation with an artifact, or with a service that speaks OpenAI's API.

Both answer piece by piece and measure what a person waits for. Only the standard library is used
to reach a service.
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

if TYPE_CHECKING:
    from edge.runtime.model import Model

_MAX_MESSAGES = 100  # of the past that are kept
_MAX_LINE = 1 << 20  # bytes; a service that sends longer ones is not one of ours
_MAX_BODY = 4 << 20
Message = Mapping[str, str]


@dataclass(frozen=True)
class Answered:
    """What one answer took; `tokens` is None where the service does not say."""

    first_ms: float
    total_ms: float
    tokens: int | None


@dataclass
class Chat(ABC):
    """The messages so far and what the answers took."""

    messages: list[Message] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def ask(self, text: str) -> Generator[str, None, None]:
        """The answer, piece by piece; it becomes part of the conversation once it is complete.

        Raises:
            EdgeError: no answer, or the service can't be reached.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        started = time.perf_counter()
        first: float | None = None
        pieces = []
        self._tokens: int | None = None
        with contextlib.closing(self._pieces(messages)) as answer:
            for piece in answer:
                first = first if first is not None else time.perf_counter() - started
                pieces.append(piece)
                yield piece
        total = time.perf_counter() - started
        self.answers.append(
            Answered((total if first is None else first) * 1000, total * 1000, self._tokens)
        )
        messages.append({"role": "assistant", "content": "".join(pieces)})
        self.messages = messages[-_MAX_MESSAGES:]

    def clear(self) -> None:
        """Forget the messages; what answers took is kept."""
        self.messages = []

    @abstractmethod
    def _pieces(self, messages: Sequence[Message]) -> Generator[str, None, None]:
        """The answer's pieces; sets `_tokens` if it is known."""


class LocalChat(Chat):
    """With a loaded model, which reads the last message, or with `whole` all of them."""

    def __init__(self, model: Model, call: Mapping[str, Any], *, whole: bool = False) -> None:
        super().__init__()
        self._model = model
        self._call = dict(call)
        self._whole = whole
        model.generate([], **self._call)  # a bad option is refused before the first message
        self._streams = self._call.get("num_beams", model.defaults.num_beams) == 1

    def _pieces(self, messages: Sequence[Message]) -> Generator[str, None, None]:
        text = conversation_text(messages) if self._whole else messages[-1]["content"]
        if self._streams:
            with self._model.stream(text, **self._call) as stream:
                yield from stream
                answer = stream.result
        else:
            answer = self._model.generate(text, **self._call)
            yield answer.text
        self._tokens = answer.output_tokens


def conversation_text(messages: Sequence[Message]) -> str:
    """All messages as one text, one a line; the service's `--chat conversation` reads the same."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class RemoteChat(Chat):
    """With a service; `options` go into each request's body."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Asks the service for its models; None takes the first of them.

        Raises:
            UsageError: the URL is none, or there is no such model.
            EdgeError: the service can't be reached.
        """
        super().__init__()
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise UsageError(f"--url must be like http://127.0.0.1:8080, not {url!r}")
        try:
            port = parts.port
        except ValueError:
            raise UsageError(f"--url {url!r} has no port from 0 to 65535") from None
        self._url = url
        self._address: tuple[str, int | None] = (parts.hostname, port)
        self._tls = parts.scheme == "https"
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"content-type": "application/json", "accept": "text/event-stream"}
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
            from edge.runtime.registry import unknown_name

            raise UsageError(unknown_name("model", self.model, tuple(self.models)))

    def _list_models(self) -> list[str]:
        with self._request("GET", "/models") as response:
            try:
                values = json.loads(response.read(_MAX_BODY))
                names = [str(each["id"]) for each in values["data"]]
            except (ValueError, TypeError, KeyError):
                raise EdgeError(f"{self._url} does not answer as OpenAI's API does") from None
        if not names:
            raise EdgeError(f"{self._url} serves no model")
        return names

    def _pieces(self, messages: Sequence[Message]) -> Generator[str, None, None]:
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
                    raise EdgeError(f"{self._url}: {_line(event['error'].get('message'))}")
                usage = event.get("usage")
                if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
                    self._tokens = usage["completion_tokens"]
                for choice in event.get("choices") or []:
                    if piece := (choice.get("delta") or {}).get("content"):
                        yield str(piece)

    def _events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        """The data of server-sent events, up to [DONE].

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        while raw := response.readline(_MAX_LINE):
            if not raw.startswith(b"data:"):
                continue
            data = raw[len(b"data:") :].strip()
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                raise EdgeError(f"{self._url}: an event that is no JSON object")
            yield event
        raise EdgeError(f"{self._url} ended before the answer did")

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
                raise EdgeError(f"{self._url}: {_refusal(response)}")
            yield response
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EdgeError(f"{self._url}: no answer ({reason})") from error
        finally:
            connection.close()


def _refusal(response: http.client.HTTPResponse) -> str:
    """What a refused request is told, in one line."""
    try:
        message = _line(json.loads(response.read(_MAX_BODY))["error"]["message"])
    except (ValueError, TypeError, KeyError):
        message = response.reason
    wait = response.headers.get("retry-after", "")
    hint = f"; try again in {wait} s" if wait.isdigit() else ""
    return f"{message} (HTTP {response.status}{hint})"


def _line(message: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(message))[:500]
