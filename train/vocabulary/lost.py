"""Characters of texts that do not survive encoding and decoding."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SPACE_MARK = "▁"  # what sentencepiece writes for a space
# Spaces that T5's tokenizer drops: at the start, at the end, and before another space.
_LOST_SPACES = re.compile(r"\A | \Z| (?= )")
_RUN = re.compile(r"(?:[^\S ]| (?= )){2,63}")  # such as a newline and the indentation after it
_MAX_RUNS = 8
_MAX_CHARACTERS = 8192  # as many as a Chinese newspaper uses
_MAX_ESCAPED = 256  # each is one more pass of the normalizer over every text
_PROBES = "aeio0.,"
_PAIR_TEXTS = 100_000  # texts that are searched for pairs that the normalizer composes


@dataclass(frozen=True)
class Lost:
    """Lost characters, in the order of their code points.

    Attributes:
        missing: Characters that have no piece.
        changed: Characters that the normalizer or the decoder changes or drops, such as a newline.
            A space stands for those at the start and end of a text, and before another space.
        left_out: How many more characters are lost, beyond the limits of 8,192 characters and 256
            changed ones; the rarest are left out.
        runs: Frequent runs of lost white space, two characters or more, such as a newline with the
            indentation after it. The last space of indentation is not lost.
    """

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left_out: int = 0
    runs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed)


def find_lost(texts: Iterable[str], tokenizer: Any) -> Lost:
    """Find the characters of `texts` that `tokenizer` does not bring back.

    Time is linear in the length of the texts, and only distinct characters are tokenized.

    Args:
        texts: The texts. Lone surrogates are ignored.
        tokenizer: A `tokenizers.Tokenizer`.
    """
    counts: Counter[str] = Counter()
    spaces = 0
    runs: Counter[str] = Counter()
    composed: list[str] = []
    for text in texts:
        counts.update(set(text))
        spaces += _LOST_SPACES.search(text) is not None
        runs.update(_RUN.findall(text))
        if not text.isascii() and len(composed) < _PAIR_TEXTS:
            composed.append(text)
    counts.pop(" ", None)
    characters = [c for c in counts if not "\ud800" <= c <= "\udfff"]
    probe = _probe(tokenizer)
    lost = _not_restored(characters, tokenizer, probe)
    changed = {c for c in lost if _is_changed(c, tokenizer, probe)}
    changed |= _composing(composed, tokenizer, probe, known=changed)
    missing = {c for c in lost if c not in changed}
    if spaces and _not_restored(("  ",), tokenizer, probe, edges=True):
        changed.add(" ")
        counts[" "] = spaces
    kept_changed = _most_frequent(changed, counts, _MAX_ESCAPED)
    kept_missing = _most_frequent(missing, counts, _MAX_CHARACTERS - len(kept_changed))
    left_out = len(changed) + len(missing) - len(kept_changed) - len(kept_missing)
    return Lost(kept_missing, kept_changed, left_out, _frequent_runs(runs, kept_changed))


def restored(texts: Sequence[str], tokenizer: Any) -> list[bool]:
    """Whether each text survives encoding and decoding by a `tokenizers.Tokenizer`."""
    texts = list(texts)
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    back = tokenizer.decode_batch([e.ids for e in encodings], skip_special_tokens=True)
    return [text == found for text, found in zip(texts, back, strict=True)]


def is_run(name: str) -> bool:
    """Whether it is the name of an added piece for a run of white space."""
    return len(name) > 1 and name.isspace()


def _frequent_runs(runs: Counter[str], lost: Collection[str]) -> tuple[str, ...]:
    """The most frequent runs, or the parts of them that consist of lost characters."""
    counts: Counter[str] = Counter()
    for run, count in runs.items():
        for is_lost, characters in itertools.groupby(run, key=lost.__contains__):
            part = "".join(characters)
            if is_lost and len(part) > 1:
                counts[part] += count
    return tuple(sorted(sorted(counts, key=lambda run: (-counts[run], run))[:_MAX_RUNS]))


def _probe(tokenizer: Any) -> str:
    """A character that survives, to put around others."""
    fine = restored(_PROBES, tokenizer)
    return next((p for p, found in zip(_PROBES, fine, strict=True) if found), "")


def _not_restored(
    characters: Sequence[str], tokenizer: Any, probe: str, *, edges: bool = False
) -> list[str]:
    texts = [c if edges else f"{probe}{c}{probe}" for c in characters]
    fine = restored(texts, tokenizer)
    return [character for character, found in zip(characters, fine, strict=True) if not found]


def _is_changed(character: str, tokenizer: Any, probe: str) -> bool:
    """Whether a piece alone would not help, because the character does not reach the model."""
    if character.isspace() or character == SPACE_MARK:
        return True
    text = f"{probe}{character}{probe}"
    return _normalized(text, tokenizer) != text


def _normalized(text: str, tokenizer: Any) -> str:
    normalizer = tokenizer.normalizer
    return text if normalizer is None else str(normalizer.normalize_str(text))


def _composing(
    texts: Sequence[str], tokenizer: Any, probe: str, *, known: Collection[str]
) -> set[str]:
    """Characters that the normalizer joins to the one before, such as a Hangul vowel."""
    pairs = {
        (first, second)
        for text in texts
        for first, second in itertools.pairwise(text)
        if _may_compose(second) and second not in known and first not in known
    }
    joined = {f"{probe}{first}{second}{probe}": second for first, second in sorted(pairs)}
    altered = [text for text in joined if _normalized(text, tokenizer) != text]
    fine = restored(altered, tokenizer)
    return {joined[text] for text, found in zip(altered, fine, strict=True) if not found}


def _may_compose(character: str) -> bool:
    """Whether it is a combining mark, or a Hangul vowel or final consonant."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"


def _most_frequent(
    characters: Collection[str], counts: Counter[str], limit: int
) -> tuple[str, ...]:
    chosen = sorted(characters, key=lambda c: (-counts[c], c))[:limit]
    return tuple(sorted(chosen))
