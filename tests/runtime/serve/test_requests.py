"""What a request may look like, and the deadline that its errors name."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.types import ASGIApp, Message

from edge.runtime import Model, load
from edge.runtime.serve import create_app
from samples import TEXTS
from serving import running

GENERATE = "/v1/generate"


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "onnx-float32") as loaded:
        yield loaded


async def post(app: ASGIApp, parts: list[bytes], version: str) -> tuple[int, Any]:
    """A request without Content-Length, as an ASGI server passes it on."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": version,
        "method": "POST",
        "scheme": "http",
        "path": GENERATE,
        "raw_path": GENERATE.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    last = len(parts) - 1
    arriving = [
        {"type": "http.request", "body": part, "more_body": number < last}
        for number, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        if not arriving:
            await asyncio.Event().wait()  # still connected
        return arriving.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


@pytest.mark.parametrize(("version", "status"), [("2", 200), ("3", 200), ("1.1", 422)])
def test_only_http_1_needs_a_length(model: Model, version: str, status: int) -> None:
    app = create_app({"m": model})
    body = json.dumps({"input": TEXTS[0]}).encode()
    try:
        found, answer = asyncio.run(post(app, [body[:9], body[9:]], version))
    finally:
        app.state.service.close()
    assert found == status, answer
    if status == 200:
        assert answer["outputs"][0]["text"] == model.generate(TEXTS[0]).text


def test_the_deadline_of_an_error_is_the_clients(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, real = threading.Event(), model.generate_each

    def generate_each(texts: Any, **options: Any) -> Any:
        blocked.wait(20)
        return real(texts, **options)

    with running({"m": model}, workers=1, deadline=5) as (client, _):
        monkeypatch.setattr(model, "generate_each", generate_each)
        header = {"x-request-timeout": "0.25"}
        answer = client.post(GENERATE, json={"input": TEXTS[0]}, headers=header)
        blocked.set()
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].endswith("within its deadline of 0.25 s")


def test_copies_of_an_engine_are_as_the_first_was_loaded(artifacts: Path) -> None:
    settings = {"drafts": {"longest": 5, "break_even": 1.5}}
    with load(artifacts / "gguf-f32", settings=settings) as model:
        model.prompt = type(model.prompt)("who uh {input}")
        expected = {text: model.generate(text).text for text in TEXTS}
        with running(model, workers=2, max_batch=1) as (client, service):
            [pool] = service.pools.values()
            [copy] = pool._copies
            assert copy.defaults == model.defaults
            assert copy.defaults.prompt_lookup_num_tokens == 5
            assert copy.artifact.manifest.runtime == model.artifact.manifest.runtime
            for text in TEXTS:
                assert copy.generate(text).text == expected[text]
                assert (
                    client.post(GENERATE, json={"input": text}).json()["outputs"][0]["text"]
                    == (expected[text])
                )
