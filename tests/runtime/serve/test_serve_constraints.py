"""Constraints of clients: off unless the service allows them, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("llguidance")

import httpx2
import jsonschema

from edge.runtime import Model, load
from samples import TEXTS
from serving import running

pytestmark = pytest.mark.alone

COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/v1/generate"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "onnx-float32") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def client(model: Model, second: Model) -> Iterator[httpx2.Client]:
    with running({"one": model, "two": second}, allow_constraints=True) as (client, _):
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {"choices": ["yes"]},
        {"regex": "a"},
        {"json_schema": {}},
        {"grammar": 'start: "a"'},
        {"copy_only": True},
        {"response_format": {"type": "json_object"}},
    ],
    ids=str,
)
def test_constraints_are_off_by_default(body: dict[str, Any], model: Model) -> None:
    with running(model) as (client, _):
        answer = client.post(COMPLETIONS, json={"prompt": TEXTS[0], **body})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "unsupported_parameter"
        assert "--allow-constraints" in error["message"]
        plain = {"prompt": TEXTS[0], "response_format": {"type": "text"}, "copy_only": False}
        assert client.post(COMPLETIONS, json=plain).status_code == 200
        [listed] = client.get("/v1/models").json()["data"]
        assert listed["edge"]["constraints"] is False


def test_clients_constrain_answers(client: httpx2.Client) -> None:
    body = {"model": "one", "prompt": list(TEXTS), "choices": ["yes", "no", "perhaps"]}
    found = client.post(COMPLETIONS, json=body).json()["choices"]
    assert {choice["text"] for choice in found} <= {"yes", "no", "perhaps"}
    native = {"model": "one", "input": TEXTS[0], "regex": "[0-9]{4}", "num_beams": 2}
    [output] = client.post(GENERATE, json=native).json()["outputs"]
    assert len(output["text"]) == 4
    assert output["text"].isdigit()
    listed = client.get("/v1/models/one").json()
    assert listed["edge"]["constraints"] is True


def test_response_format_is_openais(client: httpx2.Client, model: Model) -> None:
    openai = pytest.importorskip("openai")
    service = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="-", max_retries=0)
    messages = [{"role": "user", "content": TEXTS[0]}]
    schema = {"name": "person", "schema": SCHEMA, "strict": True}
    answer = service.chat.completions.create(
        model="one",
        messages=messages,
        response_format={"type": "json_schema", "json_schema": schema},
        max_tokens=100,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    pieces = service.chat.completions.create(
        model="one",
        messages=messages,
        response_format={"type": "json_schema", "json_schema": schema},
        max_tokens=100,
        stream=True,
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == choice.message.content
    started = service.chat.completions.create(
        model="one", messages=messages, response_format={"type": "json_object"}, max_tokens=100
    )
    assert started.choices[0].message.content.startswith("{")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"response_format": {"type": "xml"}}, 400, "response_format must be"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format must be"),
        ({"response_format": 3}, 400, "response_format must be"),
        ({"regex": "(a"}, 400, "regular expression can't be used"),
        ({"regex": "x" * 20_000}, 400, "at most 16,384 characters"),
        ({"choices": ["word " * 100] * 100}, 400, "at most 16,384 characters"),
        ({"choices": []}, 400, "at least one text"),
        ({"choices": ["a"], "regex": "b"}, 400, "can't be combined"),
        ({"copy_allow": ["b"]}, 400, "copy_allow needs copy_only"),
        ({"grammar": 'start: "a" REST\nREST: "漢" | "字"'}, 422, "can't go on"),
        ({"model": "two", "choices": ["a"]}, 400, "onnx, gguf or torchscript"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_constraints_are_one_sentence(
    body: dict[str, Any], status: int, said: str, stream: bool, client: httpx2.Client
) -> None:
    request = {"model": "one", "prompt": TEXTS[0], "max_tokens": 20, "stream": stream, **body}
    answer = client.post(COMPLETIONS, json=request)
    if stream and answer.status_code == 200:  # after its first piece
        assert said in answer.text
    else:
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]
    ok = client.post(COMPLETIONS, json={"model": "one", "prompt": TEXTS[0]})
    assert ok.status_code == 200
