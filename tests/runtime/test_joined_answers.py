"""Answers to the parts of an input as one answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edge.runtime.generation import Generation, Timings, join

CALL = Timings(1.0, 20.0, 3.0)  # of all rows of a call
PART = Generation("one", (5, 6), -1.0, "eos", 4, False, CALL, steps=2, end_token_ids=(1,))
OTHER = Generation("two", (7,), -3.0, "length", 3, True, CALL, steps=1, retried=True)


def test_one_part_is_the_answer() -> None:
    assert join([PART], []) is PART


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("text", "one\ntwo"),
        ("token_ids", (5, 6, 7)),
        ("score", (3 * -1.0 + 1 * -3.0) / 4),
        ("finish_reason", "length"),
        ("input_tokens", 7),
        ("truncated", True),
        ("timings", CALL),
        ("steps", 3),
        ("alternatives", ()),
        ("parts", 2),
        ("retried", True),
        ("end_token_ids", (1,)),
    ],
)
def test_each_field_of_a_joined_answer(field: str, expected: Any) -> None:
    first = dataclasses.replace(PART, alternatives=(OTHER,))
    assert getattr(join([first, OTHER], ["\n"]), field) == expected


def test_every_field_is_tested() -> None:
    fields = {field.name for field in dataclasses.fields(Generation)}
    tested = {case[0] for case in test_each_field_of_a_joined_answer.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert tested == fields


def test_end_tokens_of_all_parts_count() -> None:
    assert PART.output_tokens == 3
    assert OTHER.output_tokens == 1
    assert join([PART, PART, OTHER], ["", ""]).output_tokens == 7
