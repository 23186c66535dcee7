"""Rule-based noise: texts as a speaker might stumble over them.

Fillers, repeats, restarts with another row's words, and corrections: a word is said wrong, as one
of its kind from another row, then right. The rules and words are those of the synthetic questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from edge.train.synthetic import add_fillers, repeat_words, restart
from edge.train.synthetic.vocabulary import MARKERS

_KINDS = (("fill", 0.3), ("repeat", 0.2), ("restart", 0.2), ("correct", 0.3))
_FEWEST_WORDS = 3  # a shorter text has no room to stumble
_PUNCTUATION = ".,;:!?\"'()[]"


class Noise:
    """Makes texts spoken; what comes of one depends on the seed and on its own words and key."""

    def __init__(self, texts: Iterable[str], *, seed: int = 0) -> None:
        self._seed = seed
        self._texts = [words for text in texts if len(words := text.split()) >= _FEWEST_WORDS]
        pools: dict[str, dict[str, None]] = {}
        for words in self._texts:
            for word in words[1:]:  # the first one has its capital for another reason
                kind = _kind(word)
                if kind is not None:
                    pools.setdefault(kind, {})[word.strip(_PUNCTUATION)] = None
        self._pools = {kind: list(pool) for kind, pool in pools.items()}

    def spoken(self, text: str, key: object = 0) -> str | None:
        """The text with one disfluency, another one for each `key`; None for one too short."""
        words = text.split()
        if len(words) < _FEWEST_WORDS:
            return None
        rng = random.Random(f"{self._seed}/{key}/{text}")
        [kind] = rng.choices([name for name, _ in _KINDS], [weight for _, weight in _KINDS])
        said: list[str] | None = None
        if kind == "repeat":
            said = repeat_words(rng, words)
        elif kind == "restart":
            said = restart(rng, words, rng.choice(self._texts))
        elif kind == "correct":
            said = self._corrected(rng, words)
        return " ".join(said or add_fillers(rng, words, rng.choice((1, 1, 2))))

    def _corrected(self, rng: random.Random, words: list[str]) -> list[str] | None:
        places = [n for n, word in enumerate(words) if n and _kind(word) is not None]
        if not places:
            return None
        at = rng.choice(places)
        right = words[at].strip(_PUNCTUATION)
        others = [word for word in self._pools.get(_kind(words[at]) or "", ()) if word != right]
        if not others:
            return None
        return [*words[:at], rng.choice(others), *rng.choice(MARKERS), *words[at:]]


def _kind(word: str) -> str | None:
    """What a word could be taken for: a number, a name, or another long word; None for a small."""
    word = word.strip(_PUNCTUATION)
    if any(letter.isdigit() for letter in word):
        return "number"
    if word[:1].isupper():
        return "name"
    return "word" if len(word) > 4 and word.isalpha() else None
