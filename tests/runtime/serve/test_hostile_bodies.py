"""Seeded random bodies: every answer is a reason or a result, never a crash."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx2

from edge.runtime import load
from edge.runtime.serve.schemas import ChatRequest, CompletionRequest, GenerateRequest
from samples import TEXTS
from serving import running

ROUTES = {
    "/v1/generate": (GenerateRequest, {"input": TEXTS[0]}),
    "/v1/completions": (CompletionRequest, {"prompt": TEXTS[0]}),
    "/v1/chat/completions": (ChatRequest, {"messages": [{"role": "user", "content": "yes"}]}),
}
VALUES = (
    0, 1, -1, 2, 8, 64, 65, 1 << 31, 1 << 32, 1 << 63, 10**30, -(1 << 63), True, False, None,
    0.0, -0.0, 0.5, 1.0, 1e-320, 1e-45, 1.2e-38, 1e-6, 100.0, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"),
    "", "a", "\0", "\ud800", "error", "truncate", "chunk", "fallback", "x" * 5000, "\u202e",
    [], [""], ["a"] * 300, ["\ud800"], [[]], {}, {"input": "a"},
    {"a": {"b": []}}, [{"role": "user"}],
)  # fmt: skip


@pytest.fixture(scope="module")
def client(artifacts: Path) -> Iterator[httpx2.Client]:
    with load(artifacts / "onnx-float32") as model, running({"m": model}, deadline=5) as (found, _):
        yield found


def random_body(generator: random.Random, route: str) -> dict[str, Any]:
    schema, body = ROUTES[route]
    names = [*schema.model_fields, "unknown"]
    chosen = generator.sample(names, generator.choice((1, 1, 2, 3)))
    return {**body, **{name: generator.choice(VALUES) for name in chosen}}


def send(client: httpx2.Client, route: str, body: dict[str, Any]) -> httpx2.Response:
    headers = {"content-type": "application/json"}
    return client.post(route, content=json.dumps(body), headers=headers, timeout=20)


def check_bodies(client: httpx2.Client, number: int, seed: int) -> None:
    generator = random.Random(seed)
    for index in range(number):
        route = generator.choice([*ROUTES])
        body = random_body(generator, route)
        answer = send(client, route, body)
        assert answer.status_code < 500 or answer.status_code == 503, (route, body, answer.text)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"], (route, body)
        if index % 50 == 0:
            began = time.monotonic()
            assert send(client, "/v1/generate", {"input": "yes"}).status_code == 200
            assert time.monotonic() - began < 1


def test_random_bodies_get_a_reason(client: httpx2.Client) -> None:
    check_bodies(client, 200, seed=1)


@pytest.mark.slow
def test_many_random_bodies_get_a_reason(client: httpx2.Client) -> None:
    check_bodies(client, 5000, seed=2)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_every_option_takes_or_refuses_every_value(client: httpx2.Client, value: Any) -> None:
    for name in GenerateRequest.model_fields:
        body = {"input": "yes", "max_new_tokens": 4, name: value}
        answer = send(client, "/v1/generate", body)
        assert answer.status_code < 500, (body, answer.text)
    assert send(client, "/v1/generate", {"input": "yes"}).status_code == 200
