"""New inputs in every epoch: the target with a disfluency modeled on those of the rows.

For tasks whose input is the target plus extra words, such as spoken questions (Gupta et al.,
"Disfl-QA", 2021). A few thousand rows show few disfluencies, which a model trained from scratch
memorizes. The parts of a disfluency are named as in Shriberg, "Preliminaries to a Theory of Speech
Disfluencies" (1994): the reparandum (the wrong words) and the interregnum, here the marker
("no sorry"), come before the repair. Markers, the length of the reparandum and the place are taken
from the rows. The wrong words come from another target, preferably on the same subject and after
the same word.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.runtime.errors import UsageError
from edge.train.data.pairs import Pair

_LONGEST_MARKER = 6  # words
_MIN_MARKER_ROWS = 5  # that a marker must occur in
_MIN_RATIO = 0.1  # of the rows that must be a target with extra words
_RARE = 20  # a word in at most this many targets is taken as a hint at their subject
_SAME_SUBJECT = 0.6  # probability that the wrong words come from a target on the same subject
_TRIES = 8  # positions to try for a correction, before the sentence is restarted instead
_MIN_WORDS = 3  # of a target
_PUNCTUATION = "?.,!;:\"'()"


@dataclass(frozen=True)
class _Disfluency:
    """The pattern of one row: a restart or a correction, the words taken back, and the marker."""

    restart: bool
    taken_back: int
    marker: tuple[str, ...]


class DisfluencyAugmenter:
    """Adds disfluencies to some of the targets and returns them as new inputs.

    Args:
        pairs: The training pairs, which the disfluencies are modeled on.
        ratio: Fraction of the rows that get a new input.
        seed: Seed of the random choices.

    Raises:
        UsageError: Too few of the inputs are their target with extra words.
    """

    def __init__(self, pairs: Iterable[Pair], *, ratio: float, seed: int = 0) -> None:
        pairs = list(pairs)
        self._ratio, self._seed = ratio, seed
        self._disfluencies = _find_disfluencies(pairs)
        if len(self._disfluencies) < _MIN_RATIO * len(pairs):
            raise UsageError(
                f"--disfluency-ratio {ratio}: only {len(self._disfluencies)} of {len(pairs)} inputs"
                " are their target with extra words. Use the option only for data whose inputs are"
                " speech with disfluencies and whose targets are the fluent text"
            )
        self._targets = [words for pair in pairs if len(words := pair.target.split()) >= _MIN_WORDS]
        # Positions after each word, and the targets that contain a rare word.
        self._after: dict[str, list[tuple[int, int]]] = {}
        containing: dict[str, list[int]] = {}
        for number, words in enumerate(self._targets):
            for position, word in enumerate(words[:-1]):
                self._after.setdefault(_normalize(word), []).append((number, position + 1))
            for word in {_normalize(word) for word in words}:
                containing.setdefault(word, []).append(number)
        self._containing = {
            word: numbers for word, numbers in containing.items() if 1 < len(numbers) <= _RARE
        }
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Reset the random generator to the start of this epoch."""
        self._rng = random.Random(f"{self._seed}/{epoch}/stumble")

    def augment(self, source: str, target: str, span: Sequence[int]) -> str | None:
        """A new source for the target, or None if the row stays unchanged.

        `span` is the start and end of the row's own input within `source`.
        """
        if self._rng.random() >= self._ratio:
            return None
        words = target.split()
        if len(words) < _MIN_WORDS:
            return None
        start, end = span
        return source[:start] + " ".join(self._disfluent(words)) + source[end:]

    def _disfluent(self, words: list[str]) -> list[str]:
        rng = self._rng
        disfluency = rng.choice(self._disfluencies)
        other = self._choose_target(words)
        if not disfluency.restart:
            for _ in range(_TRIES):
                at = rng.randrange(1, len(words))
                wrong = self._wrong_words(words[at - 1], other, disfluency.taken_back)
                if wrong and _normalize(wrong[0]) != _normalize(words[at]):
                    return [*words[:at], *wrong, *disfluency.marker, *words[at:]]
        abandoned = self._targets[other][: max(1, disfluency.taken_back)]
        repair = list(words)
        if rng.random() < 0.5:
            repair[0] = repair[0].lower()
        return [*_unended(abandoned), *disfluency.marker, *repair]

    def _choose_target(self, words: list[str]) -> int:
        """Number of another target, often one on the same subject."""
        rng = self._rng
        if rng.random() < _SAME_SUBJECT:
            near = [n for word in words for n in self._containing.get(_normalize(word), ())]
            near = [number for number in near if self._targets[number] != words]
            if near:
                return rng.choice(near)
        return rng.randrange(len(self._targets))

    def _wrong_words(self, before: str, other: int, count: int) -> list[str]:
        """Up to `count` words that follow `before` in target `other`, or else in any target."""
        places = self._after.get(_normalize(before), [])
        if not places or not count:
            return []
        near = [position for number, position in places if number == other]
        number, position = (other, near[0]) if near else self._rng.choice(places)
        return _unended(self._targets[number][position : position + count])


def _find_disfluencies(pairs: Sequence[Pair]) -> list[_Disfluency]:
    """The disfluencies of the rows whose input is the target with one run of extra words."""
    found = []
    for pair in pairs:
        start, end = pair.span or (0, len(pair.source))
        extra_words = _extra_words(pair.source[start:end].split(), pair.target.split())
        if extra_words is not None:
            found.append(extra_words)
    # A marker is a frequent ending of the extra words; what precedes it was taken back.
    endings: Counter[tuple[str, ...]] = Counter()
    for _, extra in found:
        normal = tuple(map(_normalize, extra))
        endings.update(normal[-n:] for n in range(1, min(_LONGEST_MARKER, len(normal)) + 1))
    disfluencies = []
    for restart, extra in found:
        normal = tuple(map(_normalize, extra))
        lengths = range(min(_LONGEST_MARKER, len(normal)), 0, -1)
        length = next((n for n in lengths if endings[normal[-n:]] >= _MIN_MARKER_ROWS), 0)
        taken_back = len(extra) - length
        disfluencies.append(_Disfluency(restart, taken_back, tuple(extra[taken_back:])))
    return disfluencies


def _extra_words(source: list[str], target: list[str]) -> tuple[bool, list[str]] | None:
    """Whether the extra words come first, and the words without which the source is the target."""
    extra = len(source) - len(target)
    if extra < 1:
        return None
    heard, meant = list(map(_normalize, source)), list(map(_normalize, target))
    for at in range(len(target)):
        if heard[at + extra :] == meant[at:]:
            return at == 0, source[at : at + extra]
        if heard[at] != meant[at]:
            return None
    return None


def _unended(words: list[str]) -> list[str]:
    """The words without the punctuation that ends a sentence."""
    return [*words[:-1], words[-1].rstrip("?.!")] if words else []


def _normalize(word: str) -> str:
    return word.strip(_PUNCTUATION).lower()
