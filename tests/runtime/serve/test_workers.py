"""Workers of `edge serve` whose model fails, and the estimate that admits requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx2

from edge.runtime import Model, load
from edge.runtime.serve import estimate, settings
from edge.runtime.serve.estimate import ActiveClock, RunTimeEstimate
from edge.runtime.serve.hosts import allowed_hosts, is_allowed
from samples import TEXTS
from serving import running

GENERATE = "/v1/generate"


class Panic(BaseException):
    """As the Rust libraries' PanicException: no Exception."""


@pytest.fixture
def model(artifacts: Path) -> Iterator[Model]:
    with load(artifacts / "onnx-float32") as loaded:
        yield loaded


def fail_for(
    model: Model, monkeypatch: pytest.MonkeyPatch, text: str, action: Callable[[], object]
) -> None:
    """Let `generate_each` call `action` first if `text` is among its texts."""
    real = model.generate_each

    def generate_each(texts: Any, **options: Any) -> Any:
        if text in texts:
            action()
        return real(texts, **options)

    monkeypatch.setattr(model, "generate_each", generate_each)


def throw(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


def ask(client: httpx2.Client, text: str, **options: Any) -> httpx2.Response:
    return client.post(GENERATE, json={"input": text, **options})


@pytest.mark.parametrize(("error", "restarts"), [(Panic("p"), 1), (MemoryError(), 0)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_is_replaced(
    model: Model, monkeypatch: pytest.MonkeyPatch, error: BaseException, restarts: int
) -> None:
    fail_for(model, monkeypatch, "bad", throw(error))
    with running({"m": model}, workers=1) as (client, _):
        failed = ask(client, "bad")
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
        assert ask(client, "yes").status_code == 200
        assert client.get("/ready").status_code == 200
        metrics = client.get("/metrics").text
    assert f'edge_worker_restarts_total{{model="m"}} {restarts}.0' in metrics


def test_a_request_that_fails_leaves_its_batch_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = threading.Event()
    fail_for(model, monkeypatch, "wait", blocked.wait)
    fail_for(model, monkeypatch, "bad", throw(Panic("p")))
    with (
        running({"m": model}, workers=1, max_batch=8) as (client, service),
        ThreadPoolExecutor(8) as threads,
    ):
        first = threads.submit(ask, client, "wait")
        while service.pools["m"].queue.idle:
            time.sleep(0.01)
        answers = [threads.submit(ask, client, text) for text in ("yes", "bad", "no", "on")]
        while service.pools["m"].queue.texts < 4:
            time.sleep(0.01)
        blocked.set()
        statuses = [answer.result().status_code for answer in (first, *answers)]
    assert statuses == [200, 200, 500, 200, 200]


def test_a_run_that_never_ends_shows_in_ready(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_MIN_STUCK_S", 0.1)
    blocked = threading.Event()
    fail_for(model, monkeypatch, "stuck", blocked.wait)
    try:
        with running({"m": model}, workers=1, deadline=0.3) as (client, service):
            assert ask(client, "stuck").json()["error"]["code"] == "deadline_exceeded"
            time.sleep(0.6)
            ready = client.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "failing")
            assert "busy with one run" in ready.json()["models"]["m"]["problem"]
            assert client.get("/health").status_code == 200
            began = time.monotonic()
            assert not service.close(timeout=0.2)
            assert time.monotonic() - began < 1
    finally:
        blocked.set()


def test_a_warm_up_that_fails_shows_in_ready_until_an_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    from edge.runtime.serve import create_app

    monkeypatch.setattr(model, "generate_tokens", lambda *_, **__: throw(Panic("no kernel"))())
    with TestClient(create_app({"m": model})) as client:
        until = time.monotonic() + 5
        while (ready := client.get("/ready")).json()["status"] == "starting":
            assert time.monotonic() < until
        assert ready.status_code == 503
        assert "the warm-up failed" in ready.json()["models"]["m"]["problem"]
        assert client.post(GENERATE, json={"input": "yes"}).status_code == 200
        assert client.get("/ready").status_code == 200


def test_refusals_without_an_admission_show_in_ready(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.runtime.serve import request_queue

    monkeypatch.setattr(request_queue, "_MIN_LOCKOUT_S", 0.2)
    blocked = threading.Event()
    fail_for(model, monkeypatch, "wait", blocked.wait)
    with running({"m": model}, workers=1, queue_size=1, deadline=0.5) as (client, _):
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(ask, client, "wait")]
            time.sleep(0.1)
            many = {"input": ["a", "b"]}  # more texts than the queue holds
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert client.post(GENERATE, json=many).status_code == 429
            problem = client.get("/ready").json()["models"]["m"]["problem"]
            assert "no request was admitted for 1 s" in problem
            blocked.set()
            assert waiting[0].result().status_code == 503
        assert ask(client, "yes").status_code == 200
        assert client.get("/ready").status_code == 200


def test_many_slow_requests_are_refused_only_while_workers_are_busy(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = threading.Event()
    fail_for(model, monkeypatch, "wait", blocked.wait)
    with running({"m": model}, workers=1, deadline=2) as (client, service):
        queue = service.pools["m"].queue
        queue.estimate.set_baseline(60, time.monotonic())
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(ask, client, "wait")
            while queue.idle:
                time.sleep(0.01)
            assert ask(client, "yes").json()["error"]["code"] == "deadline_unreachable"
            blocked.set()
            assert first.result().status_code == 200
        while not queue.idle:  # shortly after the reply
            time.sleep(0.01)
        assert ask(client, "yes").status_code == 200


# -- estimate and clock --------------------------------------------------------------------------


def test_the_estimate_follows_the_runs_and_returns_to_the_baseline() -> None:
    estimate = RunTimeEstimate()
    assert estimate.seconds_per_sequence(5.0) == 0
    estimate.set_baseline(0.1, now=0.0)
    for run in range(60):
        estimate.add(4, 1.2, now=run * 0.1)
    assert estimate.seconds_per_sequence(6.0) == pytest.approx(0.3, rel=0.15)
    assert estimate.seconds_per_sequence(16.0) == pytest.approx(0.2, rel=0.15)
    assert estimate.seconds_per_sequence(1000.0) == pytest.approx(0.1)


def test_one_slow_run_changes_the_estimate_little() -> None:
    estimate = RunTimeEstimate()
    estimate.set_baseline(0.1, now=0.0)
    estimate.add(1, 300.0, now=0.0)
    assert estimate.seconds_per_sequence(0.0) == pytest.approx(0.19)


def test_the_clock_leaves_out_suspended_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now)
    clock = ActiveClock()
    clock.close()
    start = clock.now()
    now += 1.0  # a busy machine
    assert clock.now() - start == pytest.approx(1.0)
    now += 300.0
    assert clock.now() - start == pytest.approx(1.25)
    now += 0.5
    assert clock.now() - start == pytest.approx(1.75)


def test_allowed_hosts() -> None:
    assert allowed_hosts("0.0.0.0", ()) is None
    local = allowed_hosts("127.0.0.1", ())
    assert local is not None
    assert is_allowed("localhost", local)
    assert not is_allowed("", local)
    assert not is_allowed("evillocalhost", local)
    named = allowed_hosts("0.0.0.0", ("App.Example:8080", "*.b.example"))
    assert named is not None
    assert [is_allowed(host, named) for host in ("app.example", "x.b.example", "b.example")] == [
        True,
        True,
        False,
    ]
    anyone = allowed_hosts("::1", ("*",))
    assert anyone is not None
    assert is_allowed("evil.example", anyone)


# -- what the engine returns ---------------------------------------------------------------------


@pytest.mark.parametrize("token", [-1, 1 << 32, 5000])
def test_token_ids_outside_the_vocabulary_are_one_sentence(
    model: Model, monkeypatch: pytest.MonkeyPatch, token: int
) -> None:
    from edge.runtime.engines.base import Hypothesis
    from edge.runtime.errors import EdgeError

    bad = [[Hypothesis((token,), 0.0, "eos")]]
    monkeypatch.setattr(model.engine, "generate", lambda *_: bad)
    with pytest.raises(EdgeError, match="token id outside the vocabulary"):
        model.generate(TEXTS[0])
    monkeypatch.setattr(model.engine, "generate", lambda *_: [[]])
    with pytest.raises(EdgeError, match="too few answers"):
        model.generate(TEXTS[0])

    def call(ids: Any, options: Any, callback: Any) -> Any:
        callback(0, token)
        return bad

    monkeypatch.setattr(model.engine, "generate", call)
    with model.stream(TEXTS[0]) as stream, pytest.raises(EdgeError, match="outside"):
        list(stream)


def test_what_an_engine_raises_is_one_sentence(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.runtime.errors import EdgeError

    def fail(*_: Any) -> Any:
        raise RuntimeError("bad node\nwith a trace")

    monkeypatch.setattr(model.engine, "generate", fail)
    monkeypatch.setattr(model.engine, "score", fail)
    for call in (lambda: model.generate("a"), lambda: model.score("a", "b")):
        with pytest.raises(EdgeError, match=r"onnx-float32: the onnx engine failed \(bad node\)"):
            call()


def test_a_text_far_over_the_limit_is_not_tokenized(model: Model) -> None:
    from edge.runtime.errors import InputTooLongError

    text = "word " * 2_000_000
    began = time.monotonic()
    for on_long in ("error", "chunk"):
        with pytest.raises(InputTooLongError, match="tokens"):
            model.generate(text, on_long=on_long)
    with pytest.raises(InputTooLongError, match="more than"):
        model.stream(text)
    cut = model.generate(text, on_long="truncate", max_new_tokens=2)
    assert time.monotonic() - began < 1
    assert cut.truncated
    assert cut.input_tokens == model.limits.max_input_tokens
    # White space is collapsed: the text was cut although the rest would fit.
    spaced = model.generate("word" + " " * 100_000 + "x", on_long="truncate", max_new_tokens=2)
    assert spaced.truncated
