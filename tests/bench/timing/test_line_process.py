"""Processes that answer lines of JSON: answers, errors, ends and timeouts."""

from __future__ import annotations

import datetime
import os
import sys

import psutil
import pytest

from edge.bench.timing.line_process import (
    EngineFailedError,
    EngineMissingError,
    LineProcess,
    wait_until_ready,
)

_ECHO = """
import json, sys, time
print('{"ready": true}', flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("exit"):
        sys.exit("out of order")
    time.sleep(asked.get("sleep", 0))
    print(json.dumps(asked), flush=True)
"""


def echo() -> LineProcess:
    return wait_until_ready(LineProcess([sys.executable, "-c", _ECHO], os.environ), 60)


def test_requests_are_answered_and_the_process_is_paused_in_between() -> None:
    process = echo()
    try:
        assert process.ready == {"ready": True}
        assert process.request({"a": 1}, 60) == {"a": 1}
        assert process.answered > process.started
        if sys.platform == "linux":
            assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        with pytest.raises(EngineFailedError, match="no such row"):
            process.request({"error": "no such row"}, 60)
        with pytest.raises(EngineMissingError, match="optimum"):
            process.request({"missing": "optimum"}, 60)
        assert process.alive
    finally:
        process.close()
    assert not psutil.pid_exists(process.pid)


def test_requests_may_hold_columns_of_any_type() -> None:
    process = echo()
    try:
        answer = process.request({"day": datetime.date(2024, 5, 1), "text": "ü"}, 60)
    finally:
        process.close()
    assert answer == {"day": "2024-05-01", "text": "ü"}


def test_a_process_that_ends_or_takes_too_long_has_failed() -> None:
    process = echo()
    try:
        with pytest.raises(EngineFailedError, match=r"exited \(1\): out of order"):
            process.request({"exit": True}, 60)
        assert not process.alive
        with pytest.raises(EngineFailedError, match=r"exited \(1\)"):
            process.request({"a": 1}, 60)
    finally:
        process.close()
    process = echo()
    try:
        with pytest.raises(EngineFailedError, match=r"no answer within 0\.2 s"):
            process.request({"sleep": 60}, 0.2)
    finally:
        process.close()
