"""Inputs made anew in every epoch: the target, spoken with a stumble like those of the rows.

For tasks whose input is the target with words too many, such as spoken questions (Gupta et al.,
"Disfl-QA", 2021). A few thousand rows show few stumbles; a model trained from scratch then learns
the rows. What speakers say between the wrong words and the right ones, how many words they take
back and where, is mined from the rows; the wrong words come from other targets, those on the same
subject first, after the same word.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.runtime.errors import UsageError
from edge.train.data import Pair

_LONGEST_MARKER = 6  # words
_FEWEST_ROWS = 5  # in which a marker occurs
_FEWEST_SHARE = 0.1  # of the rows that must be a target with words too many
_RARE = 20  # rows; a word in fewer says what a target is about
_ON_SUBJECT = 0.6  # of the wrong words are taken from a target on the same subject, if there is one
_TRIES = 8  # places for the wrong words, before the whole begins anew
_PUNCTUATION = "?.,!;:\"'()"


@dataclass(frozen=True)
class _Stumble:
    """Of one row: whether it begins anew, how many words are taken back, what is said then."""

    anew: bool
    taken_back: int
    marker: tuple[str, ...]


class DisfluencyAugmenter:
    """Speaks a share of the targets badly."""

    def __init__(self, pairs: Iterable[Pair], *, share: float, seed: int = 0) -> None:
        """
        Raises:
            UsageError: hardly any of the inputs is its target with words too many.
        """
        pairs = list(pairs)
        self._share, self._seed = share, seed
        self._stumbles = _mined(pairs)
        if len(self._stumbles) < _FEWEST_SHARE * len(pairs):
            raise UsageError(
                f"--disfluency-ratio {share}: only {len(self._stumbles)} of {len(pairs)} inputs are"
                " their target with words too many; it is for spoken text and what was meant"
            )
        self._targets = [words for pair in pairs if len(words := pair.target.split()) > 2]
        # Where each word stands, and which targets hold a rare one.
        self._after: dict[str, list[tuple[int, int]]] = {}
        holders: dict[str, list[int]] = {}
        for number, words in enumerate(self._targets):
            for place, word in enumerate(words[:-1]):
                self._after.setdefault(_plain(word), []).append((number, place + 1))
            for word in {_plain(word) for word in words}:
                holders.setdefault(word, []).append(number)
        self._holders = {w: found for w, found in holders.items() if 1 < len(found) <= _RARE}
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch, whatever was drawn before."""
        self._random = random.Random(f"{self._seed}/{epoch}/stumble")

    def vary(self, source: str, target: str, span: Sequence[int]) -> str | None:
        """A new source for the target, or None where the row stays; `span` is the input's place."""
        if self._random.random() >= self._share:
            return None
        words = target.split()
        if len(words) < 3:
            return None
        start, end = span
        return source[:start] + " ".join(self._spoken(words)) + source[end:]

    def _spoken(self, words: list[str]) -> list[str]:
        rng = self._random
        stumble = rng.choice(self._stumbles)
        other = self._other(words)
        if not stumble.anew:
            for _ in range(_TRIES):
                at = rng.randrange(1, len(words))
                wrong = self._wrong_words(words[at - 1], other, stumble.taken_back)
                if wrong and _plain(wrong[0]) != _plain(words[at]):
                    return [*words[:at], *wrong, *stumble.marker, *words[at:]]
        begun = self._targets[other][: max(1, stumble.taken_back)]
        again = list(words)
        if rng.random() < 0.5:
            again[0] = again[0].lower()
        return [*_open(begun), *stumble.marker, *again]

    def _other(self, words: list[str]) -> int:
        """Another target, on the same subject if it can be."""
        rng = self._random
        if rng.random() < _ON_SUBJECT:
            near = [n for word in words for n in self._holders.get(_plain(word), ())]
            near = [number for number in near if self._targets[number] != words]
            if near:
                return rng.choice(near)
        return rng.randrange(len(self._targets))

    def _wrong_words(self, before: str, other: int, count: int) -> list[str]:
        """Words that stand after `before` in that target, or else in any."""
        places = self._after.get(_plain(before), [])
        if not places or not count:
            return []
        near = [place for number, place in places if number == other]
        number, place = (other, near[0]) if near else self._random.choice(places)
        return _open(self._targets[number][place : place + count])


def _mined(pairs: Sequence[Pair]) -> list[_Stumble]:
    """The stumbles of the rows whose input is the target with some words in a row too many."""
    found = []
    for pair in pairs:
        start, end = pair.span or (0, len(pair.source))
        extra_words = _too_many(pair.source[start:end].split(), pair.target.split())
        if extra_words is not None:
            found.append(extra_words)
    tails: Counter[tuple[str, ...]] = Counter()
    for _, extra in found:
        plain = tuple(map(_plain, extra))
        tails.update(plain[-n:] for n in range(1, min(_LONGEST_MARKER, len(plain)) + 1))
    stumbles = []
    for anew, extra in found:
        plain = tuple(map(_plain, extra))
        lengths = range(min(_LONGEST_MARKER, len(plain)), 0, -1)
        length = next((n for n in lengths if tails[plain[-n:]] >= _FEWEST_ROWS), 0)
        at = len(extra) - length
        stumbles.append(_Stumble(anew, at, tuple(extra[at:])))
    return stumbles


def _too_many(source: list[str], target: list[str]) -> tuple[bool, list[str]] | None:
    """Whether it begins anew, and the words in a row without which the source is the target."""
    extra = len(source) - len(target)
    if extra < 1:
        return None
    heard, meant = list(map(_plain, source)), list(map(_plain, target))
    for at in range(len(target)):
        if heard[at + extra :] == meant[at:]:
            return at == 0, source[at : at + extra]
        if heard[at] != meant[at]:
            return None
    return None


def _open(words: list[str]) -> list[str]:
    """Without the mark that ends a sentence: it goes on."""
    return [*words[:-1], words[-1].rstrip("?.!")] if words else []


def _plain(word: str) -> str:
    return word.strip(_PUNCTUATION).lower()
