"""Rules for the values of configuration fields, attached to the fields as annotations.

`Annotated[float, RATIO]` says that the field holds a number from 0 to 1.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from edge.runtime.durations import parse_duration
from edge.runtime.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """A test of a value, and what the error message says if the value fails it."""

    accepts: Callable[[Any], bool]
    message: str


def one_of(*choices: object) -> Rule:
    """The value must be one of `choices`."""
    return Rule(lambda value: value in choices, f"choose from {', '.join(map(str, choices))}")


def at_least(minimum: int) -> Rule:
    """The value must be an integer of at least `minimum`."""
    return Rule(
        lambda value: isinstance(value, int) and value >= minimum,
        f"must be an integer of at least {minimum}",
    )


def integer_from(minimum: int, maximum: int) -> Rule:
    """The value must be an integer from `minimum` to `maximum`."""
    return Rule(
        lambda value: isinstance(value, int) and minimum <= value <= maximum,
        f"must be an integer from {minimum} to {maximum}",
    )


def _is_duration(value: Any) -> bool:
    try:
        parse_duration(value)
    except UsageError:
        return False
    return True


POSITIVE = Rule(lambda value: 0 < value < math.inf, "must be a finite number greater than 0")
LEARNING_RATE = Rule(
    lambda value: 0 < value <= 1, "must be greater than 0 and at most 1; usual are 1e-5 to 1e-2"
)
NON_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "must be a finite number of 0 or greater")
RATIO = Rule(lambda value: 0 <= value <= 1, "must be from 0 to 1")
RATIO_BELOW_1 = Rule(lambda value: 0 <= value < 1, "must be at least 0 and below 1")
FRACTION = Rule(lambda value: 0 < value < 1, "must be between 0 and 1")
DURATION = Rule(_is_duration, "must be a duration, such as 90s, 30m or 2h")
SEED = integer_from(0, 2**32 - 1)
NOT_FP16 = Rule(
    lambda value: value != "fp16",
    "T5's feed-forward activations exceed fp16's maximum of 65,504 and the loss becomes NaN;"
    " use bf16, which has the range of fp32, or fp32",
)


@cache
def rules_of(kind: type) -> dict[str, tuple[Rule, ...]]:
    """The rules of each annotated field of the class `kind`, by field name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        name: tuple(rule for rule in hint.__metadata__ if isinstance(rule, Rule))
        for name, hint in hints.items()
        if hasattr(hint, "__metadata__")
    }


def broken_rule(value: object, rules: tuple[Rule, ...]) -> Rule | None:
    """The first of `rules` that `value` breaks; None, the absence of a value, breaks none."""
    if value is None:
        return None
    return next((rule for rule in rules if not rule.accepts(value)), None)
