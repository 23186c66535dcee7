"""Bounds of regular expressions: what is slow is counted as slow, however it is written."""

from __future__ import annotations

import math

import pytest

from edge.runtime.text.regex_cost import matching_steps


@pytest.mark.parametrize(
    ("regex", "power"),
    [
        ("abc", 0),
        (r"encoder\.block\.(0|1|2)\.layer\.[0-9]\.q", 0),
        ("(?i:a|b)?c", 0),
        ("(?i)abc", 0),
        ("[]a*]", 1),
        ("a*b", 1),
        ("a*|b*|c*", 1),
        ("a++b++c++", 1),
        (r"\*\+*[*+?{2,}]", 1),
        ("a{2,}", 1),
        ("a{,}", 1),
        ("a*b*", 2),
        ("a*b++", 2),
        ("(a*|b)(a*|c)(a*|d)", 3),
        ("(?:a*(?:b*(?:c*)))?", 3),
    ],
)
def test_steps_grow_with_the_length_to_the_power_of_repeats(regex: str, power: int) -> None:
    steps = matching_steps(regex, 1_000_000)
    assert 1_000_000**power <= steps < 1_000_000 ** (power + 1) / 1000


@pytest.mark.parametrize(
    "regex", ["a?" * 30, "a{0,9}" * 9, "(a|aa)" * 30, "(|)" * 30, "a??" * 30, "(?:ab)?" * 30]
)
def test_small_choices_multiply(regex: str) -> None:
    assert matching_steps(regex, 10) >= 2**29


@pytest.mark.parametrize(
    "regex",
    [
        "(a|b)*",
        "(?:ab)+",
        "(ab){2}",
        "a{1,2}+",  # in Oniguruma (?:a{1,2})+
        "a{2}{3}",
        "a**",
        "a+?{2}",
        "a{100}",
        "*a",
        r"(a)\1",
        r"(?<n>a)\k<n>",
        r"(?<n>a)\g<n>",
        "(?#[)a*a*]",  # in a comment, [ starts no class
        "(?x)# [\na*a*]",
        r"\c[a*a*]",  # a control character
        r"[\c]a*a*]",
        "a*(?i)|b*",  # in Oniguruma a*(?i:|b*)
        "(?~a)",
        "(?(1)a|b)",
        "(*FAIL)",
        "[a",
    ],
)
def test_what_has_no_bound_is_infinite(regex: str) -> None:
    assert math.isinf(matching_steps(regex, 1))


def test_deep_groups_are_counted_without_recursion() -> None:
    assert matching_steps("(" * 10_000 + "a" + ")" * 10_000, 10) < 10**6
