"""Generation options: all errors at once, unknown names with the likely one."""

from __future__ import annotations

import pytest

from edge.runtime import GenerationOptions
from edge.runtime.errors import UsageError


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        GenerationOptions(max_new_tokens=0, temperature=0.0, top_p=1.5, num_beams=True)
    for name in ("max_new_tokens", "temperature", "top_p", "num_beams"):
        assert name in str(caught.value)


def test_an_unknown_name_gets_the_likely_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'max_new_tokens'"):
        GenerationOptions().override({"max_new_token": 3})


def test_stop_is_stop_strings_and_none_changes_nothing() -> None:
    options = GenerationOptions().override({"stop": "?", "num_beams": None})
    assert options.stop_strings == ("?",)
    assert options.num_beams == 1
    assert options.non_default() == {"stop_strings": ["?"]}


def test_contradictions() -> None:
    with pytest.raises(UsageError, match="min_new_tokens"):
        GenerationOptions(min_new_tokens=9, max_new_tokens=8)
    with pytest.raises(UsageError, match="do_sample"):
        GenerationOptions(do_sample=True, num_beams=2)
    with pytest.raises(UsageError, match="num_return_sequences"):
        GenerationOptions(num_return_sequences=2)


def test_a_lower_cap_lowers_a_default_minimum() -> None:
    options = GenerationOptions(min_new_tokens=8).override({"max_new_tokens": 4})
    assert (options.min_new_tokens, options.max_new_tokens) == (4, 4)
