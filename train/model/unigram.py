"""Learning the pieces of a Unigram tokenizer, the same ones every time.

The trainer in `tokenizers` counts its candidates in the list of distinct words, so that "the",
which occurs ten thousand times but is one distinct word, gets no piece, and its result differs from
run to run. Here candidates are weighed by how often they occur in the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

Pieces = list[tuple[str, float]]

_LONGEST = 16  # characters of a piece
_CANDIDATES = 5  # times the vocabulary that is asked for
_SHRINK = 0.6  # of the pieces stay in each round
_RARE = -20.0  # log-probability of a character that no text holds


def learn_pieces(words: Mapping[str, int], alphabet: Collection[str], size: int) -> Pieces:
    """At most `size` (piece, log-probability), best first, from words with their counts.

    Every character of `alphabet` and of the words stays a piece. Kudo, "Subword Regularization"
    (2018), section 3.2, with the best segmentation of each word in place of all of them: start
    from many substrings, estimate their probabilities, and drop those whose loss costs least.
    """
    characters = set(alphabet).union(*words)
    counts = _candidates(words, size * _CANDIDATES)
    # An alphabet of its own beyond `size` (Chinese, say) keeps its most frequent characters.
    seen: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            seen[character] += count
    must = set(alphabet)
    others = sorted(characters - must, key=lambda c: (-seen[c], c))
    must.update(others[: max(0, size - len(must))])
    for character in must:
        counts[character] = seen[character]
    while True:
        scores = _scores(counts)
        for _ in range(2):
            scores = _scores(_count(words, scores, must))
        if len(scores) <= size:
            return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        counts = _prune(words, scores, must, max(size, int(len(scores) * _SHRINK)))


def _candidates(words: Mapping[str, int], limit: int) -> dict[str, int]:
    """The substrings that save most: by occurrences × length."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + _LONGEST) + 1):
                counts[word[start:end]] += count
    often = ((piece, count) for piece, count in counts.items() if count > 1)
    best = sorted(often, key=lambda item: (-item[1] * len(item[0]), item[0]))
    return dict(best[:limit])


def _scores(counts: Mapping[str, int]) -> dict[str, float]:
    """Log-probabilities of counts."""
    total = sum(counts.values())
    return {piece: math.log(count / total) if count else _RARE for piece, count in counts.items()}


def _count(
    words: Mapping[str, int], scores: Mapping[str, float], must: Collection[str]
) -> dict[str, int]:
    """How often each piece is used when every word is segmented best; unused ones are dropped."""
    counts = dict.fromkeys(sorted(must), 0)
    for word, count in words.items():
        for piece in _segment(word, scores)[0]:
            counts[piece] = counts.get(piece, 0) + count
    return counts


def _prune(
    words: Mapping[str, int],
    scores: Mapping[str, float],
    must: Collection[str],
    size: int,
) -> dict[str, int]:
    """The counts of those `size` pieces without which the text would become least probable."""
    counts = _count(words, scores, must)
    costs = []
    for piece, count in counts.items():
        if piece not in must:
            without, alternative = _segment(piece, scores, without=piece)
            costs.append((count * (scores[piece] - alternative), piece, without))
    costs.sort(key=lambda item: (-item[0], item[1]))
    kept = size - len(must)
    for _, piece, without in costs[kept:]:
        count = counts.pop(piece)
        for part in without:
            if part in counts:
                counts[part] += count
    return counts


def _segment(
    word: str, scores: Mapping[str, float], without: str | None = None
) -> tuple[list[str], float]:
    """The most probable pieces of `word` (Viterbi) and their log-probability."""
    best = [0.0] + [-math.inf] * len(word)
    origin = [0] * (len(word) + 1)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - _LONGEST), end):
            piece = word[start:end]
            score = scores.get(piece)
            if score is None or piece == without:
                if end - start > 1:
                    continue
                score = 2 * _RARE  # an unknown character: possible, and never preferred
            if best[start] + score > best[end]:
                best[end], origin[end] = best[start] + score, start
    pieces = []
    end = len(word)
    while end:
        piece = word[origin[end] : end]
        if piece in scores:
            pieces.append(piece)
        end = origin[end]
    return pieces[::-1], best[-1]
