"""Rule-based disfluencies: fillers, repeats, restarts and corrections added to any text.

A restart begins with the words of another row. A correction says a word wrong first, as one of the
same kind from another row. The rules and words are those of the synthetic questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from edge.train.synthetic import add_fillers, repeat_words, restart
from edge.train.synthetic.lexicon import MARKERS

_KINDS = (("fill", 0.3), ("repeat", 0.2), ("restart", 0.2), ("correct", 0.3))
_MIN_WORDS = 3  # a shorter text stays unchanged
_PUNCTUATION = ".,;:!?\"'()[]"


class NoiseAugmenter:
    """Adds disfluencies to texts; the result depends on the seed, the text and a key alone.

    Args:
        texts: The texts that restarts and corrections take words from.
        seed: Seed of the random choices.
    """

    def __init__(self, texts: Iterable[str], *, seed: int = 0) -> None:
        self._seed = seed
        self._texts = [words for text in texts if len(words := text.split()) >= _MIN_WORDS]
        words_by_kind: dict[str, dict[str, None]] = {}
        for words in self._texts:
            for word in words[1:]:  # the first one is capitalized whatever its kind
                kind = _kind(word)
                if kind is not None:
                    words_by_kind.setdefault(kind, {})[word.strip(_PUNCTUATION)] = None
        self._words_by_kind = {kind: list(found) for kind, found in words_by_kind.items()}

    def augment(self, text: str, key: object = 0) -> str | None:
        """The text with a disfluency that differs by `key`; None for a text under three words."""
        words = text.split()
        if len(words) < _MIN_WORDS:
            return None
        rng = random.Random(f"{self._seed}/{key}/{text}")
        [kind] = rng.choices([name for name, _ in _KINDS], [weight for _, weight in _KINDS])
        noisy: list[str] | None = None
        if kind == "repeat":
            noisy = repeat_words(rng, words)
        elif kind == "restart":
            noisy = restart(rng, words, rng.choice(self._texts))
        elif kind == "correct":
            noisy = self._corrected(rng, words)
        return " ".join(noisy or add_fillers(rng, words, rng.choice((1, 1, 2))))

    def _corrected(self, rng: random.Random, words: list[str]) -> list[str] | None:
        positions = [n for n, word in enumerate(words) if n and _kind(word) is not None]
        if not positions:
            return None
        at = rng.choice(positions)
        right = words[at].strip(_PUNCTUATION)
        same_kind = self._words_by_kind.get(_kind(words[at]) or "", ())
        others = [word for word in same_kind if word != right]
        if not others:
            return None
        return [*words[:at], rng.choice(others), *rng.choice(MARKERS), *words[at:]]


def _kind(word: str) -> str | None:
    """Kind of a word that can be corrected: number, name or long word; None for any other."""
    word = word.strip(_PUNCTUATION)
    if any(letter.isdigit() for letter in word):
        return "number"
    if word[:1].isupper():
        return "name"
    return "word" if len(word) > 4 and word.isalpha() else None
