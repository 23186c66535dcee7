"""`edge serve` under hostile artifacts, clients and signals: the real command, real sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx2
from hostile_artifacts import with_endless_loop, with_panicking_tokenizer

from samples import TEXTS
from serving import command, started

pytestmark = pytest.mark.alone

GENERATE = "/v1/generate"
QUIET_PANICS = {"RUST_BACKTRACE": "0"}


def assert_answers(address: str, within: float = 1.0) -> None:
    """A plain request is answered in time."""
    began = time.monotonic()
    answer = httpx2.post(address + GENERATE, json={"input": "yes"}, timeout=10)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < within


def wait_idle(address: str) -> None:
    """Wait for the run of a request that was given up."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = httpx2.get(f"{address}/metrics").text.splitlines()
        [busy] = [line for line in lines if line.startswith("edge_workers_busy{")]
        if float(busy.split()[-1]) == 0:
            return
        time.sleep(0.05)
    raise AssertionError("a worker is still busy")


def end(
    process: subprocess.Popen[str], within: float, number: int = signal.SIGTERM
) -> tuple[int, str]:
    """Exit status and last line after a signal."""
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=within + 20)
    assert time.monotonic() - began < within
    return process.returncode, errors.strip().splitlines()[-1]


# -- lock-out ------------------------------------------------------------------------------------


def test_a_pause_does_not_lock_clients_out(artifacts: Path) -> None:
    """With the pause in the average, every later request would miss the deadline."""
    options = ("--workers", 1, "--deadline", 0.5, "--max-new-tokens-limit", 512)
    with command(artifacts / "onnx-float32", *options) as (process, address):
        slow = {"input": TEXTS[0], "num_beams": 8, "min_new_tokens": 500, "max_new_tokens": 500}
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            send(client, json.dumps(slow).encode())
            time.sleep(0.2)
            process.send_signal(signal.SIGSTOP)
            time.sleep(8)
            process.send_signal(signal.SIGCONT)
            client.settimeout(10)
            assert b"HTTP/1.1" in client.recv(100)
        wait_idle(address)
        assert_answers(address)
        assert httpx2.get(f"{address}/ready").status_code == 200


def send(client: socket.socket, body: bytes, *headers: str) -> None:
    lines = (
        f"POST {GENERATE} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    )
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def test_slow_requests_do_not_lock_clients_out(artifacts: Path) -> None:
    options = ("--workers", 1, "--deadline", 1, "--max-n", 64, "--max-work", 1_000_000)
    with command(artifacts / "onnx-float32", *options) as (_, address):
        body = {"input": TEXTS[0], "do_sample": True, "num_return_sequences": 64}
        body |= {"min_new_tokens": 256, "max_new_tokens": 256}
        for _ in range(3):
            httpx2.post(address + GENERATE, json=body, timeout=20)
        wait_idle(address)
        assert_answers(address)
        assert httpx2.get(f"{address}/ready").status_code == 200


# -- artifacts -----------------------------------------------------------------------------------


def test_a_tokenizer_that_panics_is_refused_at_the_start(artifacts: Path, tmp_path: Path) -> None:
    """`test_workers.py` has panics that come while the service runs."""
    folder = with_panicking_tokenizer(artifacts / "onnx-float32", tmp_path / "panics")
    with started(f"m={folder}", **QUIET_PANICS) as (process, line):
        assert process.wait(10) == 2
        assert line.startswith(f"edge: {folder}/tokenizer.json: the regular expression")


def test_an_endless_graph_does_not_keep_the_process(artifacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = with_endless_loop(artifacts / "onnx-float32", tmp_path / "endless")
    with started(folder, "--drain-timeout", 1, "--deadline", 1) as (process, line):
        if " on http" not in line:  # refused at the start
            assert process.wait(10) == 2
            return
        address = line.split(" on ")[1].strip()
        wait_listening(address)
        assert httpx2.get(f"{address}/ready").status_code == 503
        answer = httpx2.post(address + GENERATE, json={"input": "yes"}, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline_exceeded")
        assert httpx2.get(f"{address}/ready").json()["status"] == "starting"
        status, last = end(process, within=4)
        assert status == 0  # the request was answered, with 503
        assert "1 requests accepted, 1 answered" in last


def wait_listening(address: str) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(httpx2.TransportError):
            httpx2.get(f"{address}/health")
            return
        time.sleep(0.02)
    raise AssertionError("the service does not listen")


# -- signals -------------------------------------------------------------------------------------


def slow_request(address: str) -> socket.socket:
    """A connection with a request that takes much longer than the tests."""
    client = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
    body = {"input": [TEXTS[0]] * 60, "min_new_tokens": 500, "max_new_tokens": 500}
    send(client, json.dumps(body).encode())
    time.sleep(0.2)
    return client


SLOW = ("--workers", 1, "--max-batch", 1, "--max-new-tokens-limit", 512, "--max-work", 1_000_000)


def test_the_drain_time_ends_a_slow_request(artifacts: Path) -> None:
    with command(artifacts / "onnx-float32", *SLOW, "--drain-timeout", 0.5) as (process, address):
        with slow_request(address):
            status, last = end(process, within=3.5)
        assert status == 1
        assert "1 requests accepted, 0 answered" in last
        assert "1 not answered in time" in last


def test_a_hangup_drains(artifacts: Path) -> None:
    with command(artifacts / "onnx-float32") as (process, address):
        assert_answers(address)
        status, last = end(process, within=3, number=signal.SIGHUP)
    assert status == 0
    assert "1 requests accepted, 1 answered" in last


def test_a_second_signal_ends_at_once(artifacts: Path) -> None:
    with command(artifacts / "onnx-float32", *SLOW) as (process, address):
        with slow_request(address):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert httpx2.get(f"{address}/ready").json()["status"] == "draining"
            _, last = end(process, within=3)
        assert "edge: stopped" in last


# -- clients -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(artifacts: Path) -> Iterator[str]:
    options = ("--workers", 1, "--allowed-host", "app.example")
    with command(f"m={artifacts / 'onnx-float32'}", *options) as (_, found):
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("localhost", 200),
        ("LOCALHOST.:9", 200),
        ("m.localhost:8080", 200),
        ("[::1]:8080", 200),
        ("app.example", 200),
    ],
)
def test_a_page_of_another_name_is_refused(address: str, host: str, status: int) -> None:
    for path in ("/", "/v1/models", "/metrics"):
        answer = httpx2.get(address + path, headers={"host": host})
        assert answer.status_code == status
    if status == 421:
        answer = httpx2.post(address + GENERATE, json={"input": "yes"}, headers={"host": host})
        assert answer.json()["error"]["code"] == "host_not_allowed"
    assert httpx2.get(f"{address}/ready", headers={"host": host}).status_code == 200
    assert_answers(address)


def test_two_lengths_of_a_body_close_the_connection(address: str) -> None:
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
        client.settimeout(5)
        smuggled = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
        send(client, smuggled, "transfer-encoding: chunked")
        received = b""
        while piece := client.recv(4096):
            received += piece
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert_answers(address)


def test_a_long_prompt_costs_little(address: str) -> None:
    text = "word and " * ((1 << 20) // 9 - 20)
    for on_long, status in (("error", 413), ("chunk", 413), ("truncate", 200)):
        began = time.monotonic()
        body = {"input": text, "on_long": on_long, "max_new_tokens": 4}
        assert httpx2.post(address + GENERATE, json=body, timeout=10).status_code == status
        assert time.monotonic() - began < 0.5
        assert_answers(address)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 9},
        {"num_beams": 9},
        {"num_beams": 64, "num_return_sequences": 64},
        {"do_sample": True, "temperature": 1e-320},
        {"do_sample": True, "temperature": 1e-45},
        {"do_sample": True, "temperature": float("nan")},
        {"do_sample": True, "temperature": float("inf")},
        {"do_sample": True, "top_p": 1e-320},
        {"do_sample": True, "repetition_penalty": 1e-320},
        {"length_penalty": -1e308},
        {"seed": 10**4000},
        {"max_new_tokens": 10**40},
        {"stop": ""},
        {"stop": [""]},
        {"fields": {"input": "x" * 100_000, "y\0": "\ud800"}},
    ],
)
def test_bad_options_are_the_clients_error(address: str, options: dict[str, object]) -> None:
    content = json.dumps({"input": TEXTS[0], **options})
    headers = {"content-type": "application/json"}
    answer = httpx2.post(address + GENERATE, content=content, headers=headers, timeout=10)
    assert answer.status_code in ((200,) if options.keys() & {"fields", "seed"} else (400, 422))
    assert_answers(address)


def test_the_work_of_a_request_is_limited(address: str) -> None:
    body = {"input": ["a"] * 60, "num_beams": 8, "max_new_tokens": 256}
    answer = httpx2.post(address + GENERATE, json=body)
    assert answer.status_code == 400
    assert "480 sequences" in answer.json()["error"]["message"]
    assert_answers(address)


@pytest.mark.parametrize(
    "content", [b'{"input": "a", "seed": ' + b"1" * 5000 + b"}", b"[" * 100_000, b'{"input":"\\u']
)
def test_bodies_that_no_json_reader_takes(address: str, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx2.post(address + GENERATE, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert_answers(address)
