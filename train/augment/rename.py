"""Rare words renamed to invented ones, alike in input and target.

A small data set shows a name once or twice. A model trained from scratch then learns the name
instead of learning to copy. A name that is another one every time can only be copied.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

from edge.train.data import Pair
from edge.train.synthetic.vocabulary import invent_word

_WORD = re.compile(r"[^\W\d_]{3,}")


class Renamer:
    """Renames the rare words of a share of the rows.

    A word is rare if at most `rare` training rows hold it.
    """

    def __init__(
        self, pairs: Iterable[Pair], *, share: float, rare: int = 20, seed: int = 0
    ) -> None:
        counts: Counter[str] = Counter()
        for pair in pairs:
            counts.update({*_WORD.findall(pair.source), *_WORD.findall(pair.target)})
        self._common = {word for word, count in counts.items() if count > rare}
        self._share = share
        self._seed = seed
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch, whatever was drawn before."""
        self._random = random.Random(f"{self._seed}/{epoch}")

    def vary(self, source: str, target: str) -> tuple[str, str] | None:
        """The pair with its rare words renamed, or None where it stays as it is."""
        if self._random.random() >= self._share:
            return None
        # Words that only the input has are renamed too: what is dropped must not betray itself.
        # One that only the target has stays, since nothing in the input would say its new name.
        rare = set(_WORD.findall(source)) - self._common
        if not rare:
            return None
        names = {word: self._like(word) for word in sorted(rare)}

        def renamed(text: str) -> str:
            return _WORD.sub(lambda match: names.get(match.group(), match.group()), text)

        return renamed(source), renamed(target)

    def _like(self, word: str) -> str:
        """An invented word with the capitals of `word`."""
        name = invent_word(self._random)
        if word.isupper():
            return name.upper()
        return name.capitalize() if word[0].isupper() else name
