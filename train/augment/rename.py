"""Rare words replaced by invented ones, the same in input and target.

A small data set has a name only once or twice. A model trained from scratch then memorizes the name
instead of learning to copy it. A name that is different each time can only be copied.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

from edge.train.data.pairs import Pair
from edge.train.synthetic.vocabulary import invent_word

_WORD = re.compile(r"[^\W\d_]{3,}")


class Renamer:
    """Renames the rare words of some of the rows.

    Args:
        pairs: The training pairs, in which words are counted.
        ratio: Fraction of the rows that are changed.
        rare: A word is rare if at most this many rows contain it.
        seed: Seed of the random choices.
    """

    def __init__(
        self, pairs: Iterable[Pair], *, ratio: float, rare: int = 20, seed: int = 0
    ) -> None:
        counts: Counter[str] = Counter()
        for pair in pairs:
            counts.update({*_WORD.findall(pair.source), *_WORD.findall(pair.target)})
        self._common = {word for word, count in counts.items() if count > rare}
        self._ratio = ratio
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Reset the random generator to the start of this epoch."""
        self._rng = random.Random(f"{self._seed}/{epoch}")

    def augment(self, source: str, target: str) -> tuple[str, str] | None:
        """The texts with their rare words renamed, or None if they stay unchanged."""
        if self._rng.random() >= self._ratio:
            return None
        # Words that occur in the source alone are renamed too: otherwise an unchanged name would
        # show that it is to be dropped. Words of the target alone stay: nothing in the source
        # would predict their new names.
        rare = set(_WORD.findall(source)) - self._common
        if not rare:
            return None
        names = {word: self._name_like(word) for word in sorted(rare)}

        def renamed(text: str) -> str:
            return _WORD.sub(lambda match: names.get(match.group(), match.group()), text)

        return renamed(source), renamed(target)

    def _name_like(self, word: str) -> str:
        """An invented word, capitalized like `word`."""
        name = invent_word(self._rng)
        if word.isupper():
            return name.upper()
        return name.capitalize() if word[0].isupper() else name
