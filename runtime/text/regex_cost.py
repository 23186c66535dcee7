"""Upper bounds for the backtracking of regular expressions from untrusted files.

They hold for both libraries that run such expressions: Python's `re`, and Oniguruma with its Ruby
syntax, which the tokenizers library uses. What the two read differently, or what makes a bound
hard to give, counts as infinite: backreferences, calls, conditions, comments, the verbose mode,
repeated groups, and a quantifier of a quantifier.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# Escapes that stand for one character, a class or a place.
_ESCAPE = (
    r"\\(?:[^A-Za-z0-9]|[dDsSwWhHbBAzZGnrtfvae]|[pP]\{\^?\w+\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})"
)
_ATOM = re.compile(rf"{_ESCAPE}|\[\^?(?:{_ESCAPE}|[^\]\\])*+\]|[^\\\[()|*+?]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:[ims]*(?:-[ims]+)?:|<?[=!]|>|P?<\w+>))?(?!\?)")
_WHOLE_FLAGS = re.compile(r"\(\?[ims]+\)")  # elsewhere, the two libraries read them differently
_INTERVAL = re.compile(r"\{(?:(\d+)|(\d*),(\d*))\}")
_MAX_REPEATS = 99  # in {…}


@dataclass(frozen=True)
class _Cost:
    """Of one part at one place of a text: the ways to match it, and the steps to try all."""

    ways: float = 1
    steps: float = 1

    def then(self, other: _Cost) -> _Cost:
        """Of this part followed by another, which is tried after each way to match this one."""
        return _Cost(self.ways * other.ways, self.steps + self.ways * other.steps)

    def alternatively(self, other: _Cost) -> _Cost:
        return _Cost(self.ways + other.ways, self.steps + other.steps)


_INFINITE = _Cost(math.inf, math.inf)


def matching_steps(regex: str, length: int) -> float:
    """About how many steps it takes at most to match at one place of a text.

    A part that is repeated without a bound can match in `length` ways, an optional one in two.
    Ways multiply along a sequence and add up over alternatives. Possessive quantifiers give back
    nothing: they match in one way.

    Args:
        regex: The expression; what is no regular expression gets any number.
        length: Characters of the text.

    Returns:
        The number of steps; infinite for syntax that the module's docstring names.
    """
    place = found.end() if (found := _WHOLE_FLAGS.match(regex)) else 0
    # Of each open group: the alternatives before, and the alternative so far.
    outer: list[tuple[_Cost | None, _Cost]] = []
    before: _Cost | None = None
    branch = _Cost()
    while place < len(regex):
        part: _Cost | None = None
        is_group = False
        if regex[place] == "|":
            before = branch if before is None else before.alternatively(branch)
            branch = _Cost()
            place += 1
        elif regex[place] == ")":
            part = branch if before is None else before.alternatively(branch)
            before, branch = outer.pop() if outer else (None, _Cost())
            is_group = True
            place += 1
        elif found := _GROUP.match(regex, place):
            outer.append((before, branch))
            before, branch = None, _Cost()
            place = found.end()
        elif found := _ATOM.match(regex, place):
            part = _Cost()
            place = found.end()
        else:  # also a quantifier after nothing, or after a quantifier
            return math.inf
        if part is not None:
            place, part = _quantified(regex, place, part, length, is_group=is_group)
            branch = branch.then(part)
    while True:
        whole = branch if before is None else before.alternatively(branch)
        if not outer:
            return whole.steps
        before, branch = outer.pop()
        branch = branch.then(whole)


def _quantified(
    regex: str, place: int, part: _Cost, length: int, *, is_group: bool
) -> tuple[int, _Cost]:
    """Where the quantifier at `place` ends, if there is one, and the cost of the part with it."""
    quantifier = regex[place : place + 1]
    interval = _INTERVAL.match(regex, place)
    if quantifier == "?":
        place, repeated = place + 1, _Cost(part.ways + 1, part.steps + 1)
    elif is_group and (interval or quantifier in ("*", "+")):
        return place, _INFINITE
    elif quantifier in ("*", "+"):
        place, repeated = place + 1, _Cost(length, length)
    elif interval:
        place, repeated = interval.end(), _interval(interval, length)
    else:
        return place, part
    suffix = regex[place : place + 1]
    if suffix == "?":  # lazy; after {n}, Oniguruma reads it as optional
        place += 1
        if interval:
            repeated = _Cost(repeated.ways + 1, repeated.steps + 1)
    elif suffix == "+":
        if interval:  # possessive in Python, repeated in Oniguruma
            return place, _INFINITE
        place, repeated = place + 1, _Cost(1, repeated.steps)
    if _INTERVAL.match(regex, place):
        return place, _INFINITE
    return place, repeated


def _interval(found: re.Match[str], length: int) -> _Cost:
    """The cost of a character with {n}, {n,}, {,n} or {n,m}."""
    exact, low, high = (int(text[:4]) if text else None for text in found.groups())
    if max(exact or 0, low or 0, high or 0) > _MAX_REPEATS:
        return _INFINITE
    if exact is not None:
        return _Cost(1, exact + 1)
    if high is None:
        return _Cost(length, length + (low or 0))
    return _Cost(abs(high - (low or 0)) + 1, max(high, low or 0) + 1)
