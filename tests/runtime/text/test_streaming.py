"""Streams of text: pieces, and the end of a stream that nobody reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from edge.runtime.engines.base import TokenCallback
from edge.runtime.errors import UsageError
from edge.runtime.text.streaming import Stream


def letters(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def endless(ended: threading.Event) -> Callable[[TokenCallback], str]:
    def produce(on_token: TokenCallback) -> str:
        while not on_token(0, ord("a")):
            time.sleep(0.001)
        ended.set()
        return "done"

    return produce


def test_a_dropped_stream_ends() -> None:
    ended = threading.Event()
    stream = Stream(endless(ended), letters, eos=1)
    assert next(stream) == "a"
    assert not ended.is_set()
    del stream
    assert ended.wait(10)


def test_a_loop_that_is_left_ends_the_stream() -> None:
    ended = threading.Event()
    for piece in Stream(endless(ended), letters, eos=1):
        assert piece == "a"
        break
    assert ended.wait(10)


def test_a_closed_stream_has_ended() -> None:
    ended = threading.Event()
    with Stream(endless(ended), letters, eos=1) as stream:
        next(stream)
        with pytest.raises(UsageError, match="has not ended"):
            assert stream.result
    assert ended.is_set()
    assert stream.result == "done"


def say(text: str) -> Callable[[TokenCallback], int]:
    return lambda on_token: sum(on_token(0, ord(letter)) for letter in text)


@pytest.mark.parametrize(
    ("text", "stop", "pieces"),
    [
        ("abc", (), ["a", "b", "c"]),
        ("abXYc", ("XY",), ["a", "b"]),
        ("abXc", ("XY",), ["a", "b", "Xc"]),
        ("abX", ("XY",), ["a", "b", "X"]),
        ("abX\x01", ("XY",), ["a", "b", "X"]),  # eos
        ("XYXY", ("XY",), []),
    ],
)
def test_pieces_end_before_a_stop_string(text: str, stop: Sequence[str], pieces: list[str]) -> None:
    stream = Stream(say(text), letters, eos=1, stop_strings=stop)
    assert list(stream) == pieces
    assert stream.result == 0


def test_an_error_of_the_engine_is_raised_by_the_iterator() -> None:
    def produce(on_token: TokenCallback) -> str:
        on_token(0, ord("a"))
        raise ValueError("no more")

    stream = Stream(produce, letters, eos=1)
    assert next(stream) == "a"
    with pytest.raises(ValueError, match="no more"):
        next(stream)
