"""`edge serve` as clients see it: real uvicorn, real ports, real models."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx2

from edge.runtime import Guardrails, Model, RegexOutput, load
from edge.runtime.serve.service import Service
from samples import TEXTS
from serving import running

pytestmark = pytest.mark.alone

COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/v1/generate"


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Iterator[Model]:
    rails = Guardrails(max_input_tokens=60, max_new_tokens=200)
    with load(artifacts / "onnx-float32", guardrails=rails) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def service(model: Model, second: Model) -> Iterator[tuple[httpx2.Client, Service]]:
    with running({"one": model, "two": second}, max_body_bytes=20_000, body_timeout=0.5) as both:
        yield both


@pytest.fixture(scope="module")
def client(service: tuple[httpx2.Client, Service]) -> httpx2.Client:
    return service[0]


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


# -- answers -------------------------------------------------------------------------------------


def test_completions_are_the_models_answers(client: httpx2.Client, model: Model) -> None:
    body = {"model": "one", "prompt": list(TEXTS), "max_tokens": 100}
    answer = client.post(COMPLETIONS, json=body)
    assert answer.status_code == 200
    value = answer.json()
    expected = model.generate(list(TEXTS), max_new_tokens=100)
    assert [choice["text"] for choice in value["choices"]] == [e.text for e in expected]
    reasons = ["stop" if e.finish_reason == "eos" else "length" for e in expected]
    assert [choice["finish_reason"] for choice in value["choices"]] == reasons
    assert value["usage"]["prompt_tokens"] == sum(e.input_tokens for e in expected)
    assert value["usage"]["completion_tokens"] == sum(e.output_tokens for e in expected)
    short = client.post(COMPLETIONS, json={**body, "max_tokens": 2}).json()
    assert short["choices"][0]["finish_reason"] == "length"


def test_a_chat_reads_the_last_user_message(client: httpx2.Client, model: Model) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        *user(TEXTS[1]),
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": [{"type": "text", "text": TEXTS[0]}], "name": "Ann"},
    ]
    value = client.post(CHAT, json={"model": "one", "messages": messages}).json()
    message = value["choices"][0]["message"]
    assert message == {"role": "assistant", "content": model.generate(TEXTS[0]).text}
    assert value["edge"]["engine_ms"] > 0


def test_a_chat_can_be_read_as_a_conversation(model: Model) -> None:
    conversation = [*user("who"), {"role": "assistant", "content": "what"}, *user("when")]
    with running({"one": model}, chat="conversation") as (client, _):
        value = client.post(CHAT, json={"model": "one", "messages": conversation}).json()
    expected = model.generate("user: who\nassistant: what\nuser: when")
    assert value["choices"][0]["message"]["content"] == expected.text


def events(client: httpx2.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_streams_its_pieces(client: httpx2.Client, model: Model) -> None:
    body = {"model": "one", "messages": user(TEXTS[0]), "stream_options": {"include_usage": True}}
    first, *middle, last, usage = events(client, CHAT, body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    expected = model.generate(TEXTS[0])
    pieces = [event["choices"][0]["delta"]["content"] for event in middle]
    assert len(pieces) > 3
    assert "".join(pieces) == expected.text
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == expected.output_tokens


def test_answers_without_pieces_stream_at_the_end(client: httpx2.Client, model: Model) -> None:
    beams = {"model": "one", "prompt": TEXTS[1], "num_beams": 3}
    texts = [e["choices"][0]["text"] for e in events(client, COMPLETIONS, beams)]
    assert "".join(texts) == model.generate(TEXTS[1], num_beams=3).text
    long = {"model": "one", "prompt": " ".join(TEXTS[:2] * 3), "on_long": "chunk"}
    texts = [e["choices"][0]["text"] for e in events(client, COMPLETIONS, long)]
    assert "".join(texts) == model.generate(long["prompt"], on_long="chunk").text
    refused = client.post(COMPLETIONS, json={**long, "on_long": "error", "stream": True})
    assert refused.status_code == 413


def test_generate_returns_scores_and_errors_per_text(client: httpx2.Client, model: Model) -> None:
    body = {"model": "one", "input": [TEXTS[0], "word " * 100], "num_beams": 2}
    value = client.post(GENERATE, json={**body, "num_return_sequences": 2}).json()
    good, bad = value["outputs"]
    expected = model.generate(TEXTS[0], num_beams=2, num_return_sequences=2)
    assert good["text"] == expected.text
    assert good["score"] == pytest.approx(expected.score, abs=1e-3)
    assert good["alternatives"][0]["text"] == expected.alternatives[0].text
    assert bad["error"]["code"] == "context_length_exceeded"
    assert value["timings"]["engine_ms"] > 0


def test_sampling_follows_openais_temperature(client: httpx2.Client, model: Model) -> None:
    cold = {"model": "one", "prompt": TEXTS[0], "temperature": 0}
    [choice] = client.post(COMPLETIONS, json=cold).json()["choices"]
    assert choice["text"] == model.generate(TEXTS[0]).text
    hot = {**cold, "temperature": 5, "top_k": 0, "n": 3, "seed": -7}
    first, again = (client.post(COMPLETIONS, json=hot).json()["choices"] for _ in range(2))
    assert len({choice["text"] for choice in first}) == 3
    assert [c["text"] for c in first] == [c["text"] for c in again]


def test_models_are_listed(client: httpx2.Client) -> None:
    data = client.get("/v1/models").json()["data"]
    assert [(item["id"], item["object"]) for item in data] == [("one", "model"), ("two", "model")]
    shown = client.get("/v1/models/two").json()
    assert shown["edge"]["format"] == "ctranslate2"
    assert client.get("/v1/models/three").status_code == 404


def test_concurrent_requests_get_the_right_answers(client: httpx2.Client, second: Model) -> None:
    """With the engine that uses the largest batches."""
    expected = {text: second.generate(text).text for text in TEXTS}

    def ask(text: str) -> bool:
        body = {"model": "two", "prompt": text}
        answer = client.post(COMPLETIONS, json=body)
        return answer.json()["choices"][0]["text"] == expected[text]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, [*TEXTS] * 12))


def test_queued_requests_share_a_batch(second: Model) -> None:
    with running(second, max_batch=8) as (client, service):
        [pool] = service.pools.values()

        def ask(_: int) -> int:
            body = {"input": TEXTS[0], "min_new_tokens": 64, "max_new_tokens": 64}
            return int(client.post(GENERATE, json=body).json()["timings"]["shared_by"])

        with ThreadPoolExecutor(12) as threads:
            shared = list(threads.map(ask, range(36)))
        assert pool.max_batch == 8
    assert max(shared) > 2


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"model": "one", "prompt": "\xff"}', 400, "invalid_json"),
        (b"[" * 10_000, 400, "invalid_json"),
        (b"[]", 422, "invalid_type"),
        ({"model": "one", "prompt": 5}, 422, "invalid_type"),
        ({"model": "one", "prompt": "a", "max_tokens": "5"}, 422, "invalid_type"),
        ({"model": "one"}, 422, "invalid_type"),
        (b'{"model": "one", "prompt": "\\ud800"}', 400, "invalid_value"),
        ({"model": "one", "prompt": []}, 400, "invalid_value"),
        ({"model": "onn", "prompt": "a"}, 404, "model_not_found"),
        ({"prompt": "a"}, 404, "model_not_found"),
        ({"model": "one", "prompt": "word " * 100}, 413, "context_length_exceeded"),
        ({"model": "one", "prompt": "a" * 30_000}, 413, "body_too_large"),
        ({"model": "one", "prompt": "a" * 300_000}, 413, "body_too_large"),
        ({"model": "one", "prompt": "a", "logit_bias": {"5": 1}}, 400, "unsupported_parameter"),
        ({"model": "one", "prompt": "a", "echo": True}, 400, "unsupported_parameter"),
        ({"model": "one", "prompt": "a", "n": 2}, 400, "invalid_value"),
        ({"model": "one", "prompt": "a", "max_tokens": 201}, 400, "invalid_value"),
        ({"model": "one", "prompt": "a", "top_p": 7.0}, 400, "invalid_value"),
        ({"model": "one", "prompt": "a", "num_beam": 2}, 400, "unknown_parameter"),
        ({"model": "one", "prompt": ["a", "b"], "stream": True}, 400, "unsupported_parameter"),
    ],
)
def test_bad_requests_get_a_reason(
    client: httpx2.Client, body: Any, status: int, code: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    good = client.post(COMPLETIONS, json={"model": "one", "prompt": "yes"})
    assert good.status_code == 200


def test_other_errors(client: httpx2.Client) -> None:
    assert client.get("/nowhere").json()["error"]["code"] == "not_found"
    assert client.get(COMPLETIONS).status_code == 405
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    answer = client.post(CHAT, json={"model": "one", "messages": user(picture)})  # type: ignore[arg-type]
    assert answer.status_code == 400
    assert "image_url" in answer.json()["error"]["message"]
    # A page of another site may send plain text without a preflight; it is not read as JSON.
    cross_site = client.post(
        COMPLETIONS,
        content=b'{"model": "one", "prompt": "a"}',
        headers={"content-type": "text/plain"},
    )
    assert cross_site.status_code == 422
    assert (
        "access-control-allow-origin" not in client.get("/health", headers={"origin": "a"}).headers
    )


def test_an_answer_that_fails_the_output_check(artifacts: Path) -> None:
    rails = Guardrails(output=RegexOutput(r"\d+"))
    with load(artifacts / "onnx-float32", guardrails=rails) as model, running(model) as (client, _):
        answer = client.post(COMPLETIONS, json={"prompt": TEXTS[0]})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid_output"
    assert error["raw_text"]


def test_a_key_is_required_if_one_is_set(model: Model) -> None:
    with running(model, api_keys=("first", "second")) as (client, _):
        body = {"prompt": "yes"}
        for header in ({}, {"authorization": "Bearer firs"}, {"authorization": "Basic first"}):
            answer = client.post(COMPLETIONS, json=body, headers=header)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert client.get("/metrics", headers=header).status_code == 401
        for key in ("first", "second"):
            header = {"authorization": f"Bearer {key}"}
            assert client.post(COMPLETIONS, json=body, headers=header).status_code == 200
        assert client.get("/health").status_code == 200


def test_pages_of_allowed_origins_may_call(model: Model) -> None:
    with running(model, cors_origins=("https://a.example",)) as (client, _):
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            headers = client.get("/v1/models", headers={"origin": origin}).headers
            assert (headers.get("access-control-allow-origin") == origin) is allowed


# -- load ----------------------------------------------------------------------------------------

SLOW = {"min_new_tokens": 200, "max_new_tokens": 200}


def test_requests_over_the_queue_size_are_refused(model: Model) -> None:
    with running(model, queue_size=2, workers=1, max_batch=1) as (client, service):

        def ask(_: int) -> httpx2.Response:
            return client.post(GENERATE, json={"input": TEXTS[0], **SLOW})

        with ThreadPoolExecutor(24) as threads:
            answers = list(threads.map(ask, range(48)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        refused = answers[statuses.index(429)]
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post(GENERATE, json={"input": "yes"}).status_code == 200
        wait_idle(service)


def test_a_request_past_its_deadline_is_cancelled(model: Model) -> None:
    with running(model, workers=1, max_batch=1) as (client, service):
        header = {"x-request-timeout": "0.05"}
        many = {"input": [TEXTS[0]] * 60, **SLOW}
        started = time.monotonic()
        answer = client.post(GENERATE, json=many, headers=header)
        assert time.monotonic() - started < 2
        assert (answer.status_code, answer.headers["retry-after"] >= "1") in (
            (503, True),
            (429, True),
        )
        bad = client.post(GENERATE, json={"input": "a"}, headers={"x-request-timeout": "soon"})
        assert bad.status_code == 400
        wait_idle(service)


def wait_idle(service: Service) -> None:
    until = time.monotonic() + 5
    while not service.idle and time.monotonic() < until:
        time.sleep(0.01)
    assert service.idle


def test_a_client_that_leaves_frees_its_worker(model: Model) -> None:
    with running(model, workers=1, max_batch=1) as (client, service):
        [pool] = service.pools.values()
        leaving = {"input": [TEXTS[0]] * 60, **SLOW}
        with pytest.raises(httpx2.TimeoutException):
            client.post(GENERATE, json=leaving, timeout=0.1)
        started = time.monotonic()
        wait_idle(service)
        whole = pool.model.generate(TEXTS[0], **SLOW).timings.generate_ms / 1000 * 60
        assert time.monotonic() - started < max(0.5, whole / 2)
        body = {"messages": user(TEXTS[0]), "stream": True, **SLOW}
        with client.stream("POST", CHAT, json=body) as response:
            next(response.iter_lines())
        wait_idle(service)
        text = client.get("/metrics").text
    assert 'edge_requests_error_total{kind="client_left"' in text


# -- slow clients --------------------------------------------------------------------------------


def connect(client: httpx2.Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.base_url.port), timeout=5)


def closed_within(connection: socket.socket, seconds: float, drip: bytes = b"") -> bytes:
    """What arrived before the other side closed; `drip` is sent repeatedly."""
    received, until = b"", time.monotonic() + seconds
    connection.settimeout(0.05)
    while time.monotonic() < until:
        try:
            if drip:
                connection.sendall(drip)
            piece = connection.recv(4096)
            if not piece:
                return received
            received += piece
        except TimeoutError:
            continue
        except OSError:
            return received
    raise AssertionError("the connection is still open")


def test_slow_heads_and_bodies_time_out(service: tuple[httpx2.Client, Service]) -> None:
    client, state = service
    with connect(client) as silent, connect(client) as dripping:
        dripping.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-a: ")
        closed_within(dripping, 3, drip=b"a")
        closed_within(silent, 3)
    with connect(client) as body, connect(client) as slow_body:
        for connection in (body, slow_body):
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n"
                b"content-type: application/json\r\n\r\n"
            )
        assert b" 408 " in closed_within(body, 3)
        closed_within(slow_body, 3, drip=b" ")
    assert client.post(COMPLETIONS, json={"model": "one", "prompt": "yes"}).status_code == 200
    wait_idle(state)


def test_a_kept_alive_connection_times_out_too(client: httpx2.Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.3)
        assert b"200 OK" in connection.recv(4096)
        connection.sendall(b"GET /health HTTP/1.1\r\nx-a: ")
        closed_within(connection, 3, drip=b"a")


def test_connections_have_a_limit(model: Model) -> None:
    """Connections beyond the limit are closed at once, not by the timeout for silent ones."""
    limit, more = 5, 5
    with running(model, max_connections=limit, head_timeout=60) as (client, _):
        assert client.get("/health").status_code == 200  # the client's own connection counts
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(connect(client)) for _ in range(limit - 1 + more)]
            until = time.monotonic() + 10
            while sum(map(is_closed, connections)) < more and time.monotonic() < until:
                time.sleep(0.02)
            closed = [is_closed(connection) for connection in connections]
            assert closed == [False] * (limit - 1) + [True] * more
        # Closed connections free their places.
        with connect(client) as connection:
            time.sleep(0.2)
            assert not is_closed(connection)
        assert client.post(COMPLETIONS, json={"prompt": "yes"}).status_code == 200


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection on which it sends nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_requests_over_the_limit_are_refused(model: Model) -> None:
    with running(model, max_requests=2, workers=1) as (client, _):

        def ask(_: int) -> int:
            return client.post(GENERATE, json={"input": TEXTS[0], **SLOW}).status_code

        with ThreadPoolExecutor(12) as threads:
            assert set(threads.map(ask, range(24))) == {200, 503}


# -- operation ----------------------------------------------------------------------------------


def test_a_client_that_leaves_the_queue_is_not_answered(model: Model) -> None:
    with running(model, workers=1, max_batch=1) as (client, service):
        [pool] = service.pools.values()
        long = {"input": [TEXTS[0]] * 20, **SLOW}
        with ThreadPoolExecutor(1) as threads:
            busy = threads.submit(client.post, GENERATE, json=long)
            while pool.queue.idle:
                time.sleep(0.001)
            for body in ({"stream": True}, {}):
                with pytest.raises(httpx2.TimeoutException):
                    client.post(CHAT, json={"messages": user("a"), **body}, timeout=0.1)
            until = time.monotonic() + 2
            while pool.queue.texts and time.monotonic() < until:
                time.sleep(0.001)
            assert pool.queue.texts == 0
            assert not busy.done()
            assert busy.result().status_code == 200


def test_metrics_count(model: Model) -> None:
    with running({"m": model}) as (client, _):
        client.post(COMPLETIONS, json={"prompt": TEXTS[0]})
        client.post(COMPLETIONS, json={"prompt": TEXTS[0], "prompt_lookup_num_tokens": 8})
        client.post(COMPLETIONS, json={"prompt": "a", "n": 2})
        lines = dict(
            line.rsplit(" ", 1)
            for line in client.get("/metrics").text.splitlines()
            if not line.startswith("#")
        )
    expected = model.generate(TEXTS[0])
    assert float(lines['edge_requests_success_total{model="m"}']) == 2
    assert float(lines['edge_requests_error_total{kind="invalid_value",model="m"}']) == 1
    assert float(lines['edge_input_tokens_total{model="m"}']) == 2 * expected.input_tokens
    assert float(lines['edge_output_tokens_total{model="m"}']) == 2 * expected.output_tokens
    assert float(lines['edge_speculative_tokens_accepted_total{model="m"}']) > 0
    assert float(lines['edge_queue_wait_seconds_count{model="m"}']) == 2
    assert float(lines['edge_queue_size{model="m"}']) == 0


def test_the_log_holds_counts_and_no_content(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="edge.serve")
    for log_content in (False, True):
        caplog.clear()
        with running(model, log_content=log_content) as (client, _):
            client.post(COMPLETIONS, json={"prompt": TEXTS[0]})
            client.post(COMPLETIONS, json={"prompt": TEXTS[0], "n": 5})
        lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "edge.serve"]
        assert lines[0]["output_tokens"] == model.generate(TEXTS[0]).output_tokens
        assert lines[1]["status"] == 400
        assert ("Verona" in caplog.text) is log_content


def test_a_draining_service_answers_accepted_requests_only(model: Model) -> None:
    with running(model, workers=1, max_batch=1) as (client, service):
        statuses: list[int] = []

        def ask() -> None:
            body = {"input": [TEXTS[0]] * 8, **SLOW}
            statuses.append(client.post(GENERATE, json=body).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 5
        while service._in_flight < 3 and time.monotonic() < until:
            time.sleep(0.001)
        service.drain()
        refused = client.post(GENERATE, json={"input": "yes"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        for thread in threads:
            thread.join()
        assert statuses == [200, 200, 200]


def test_an_app_mounts_in_another(model: Model) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from edge.runtime.serve import ServeSettings, create_app

    inner = create_app({"m": model}, ServeSettings(api_keys=("key",)))
    host = FastAPI()
    host.mount("/edge", inner)
    with TestClient(host) as client:
        body = {"model": "m", "prompt": TEXTS[0]}
        assert client.get("/edge/health").status_code == 200
        assert client.post("/edge/v1/completions", json=body).status_code == 401
        header = {"authorization": "Bearer key"}
        answer = client.post("/edge/v1/completions", json=body, headers=header)
        assert answer.json()["choices"][0]["text"] == model.generate(TEXTS[0]).text
    inner.state.service.close()
    assert model.generate(TEXTS[0]).text


def test_copies_of_an_engine_that_is_not_concurrent(artifacts: Path) -> None:
    with load(artifacts / "gguf-f32") as model, running(model, workers=2) as (client, service):
        [pool] = service.pools.values()
        assert pool.workers == 2
        expected = {text: model.generate(text).text for text in TEXTS}
        with ThreadPoolExecutor(8) as threads:
            answers = threads.map(
                lambda text: client.post(COMPLETIONS, json={"prompt": text}).json(), [*TEXTS] * 4
            )
            for text, answer in zip([*TEXTS] * 4, answers, strict=True):
                assert answer["choices"][0]["text"] == expected[text]
