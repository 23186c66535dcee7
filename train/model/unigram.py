"""Deterministic training of the pieces of a Unigram tokenizer.

The trainer in `tokenizers` counts candidates in the list of distinct words, so that "the", which
occurs ten thousand times but is one distinct word, gets no piece, and its result differs from run
to run. Here candidates are weighted by how often they occur in the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

Pieces = list[tuple[str, float]]

_MAX_PIECE_LENGTH = 16  # characters
_CANDIDATES = 5  # times the requested size, to start from
_SHRINK = 0.6  # ratio of the pieces that are kept in each round
_UNSEEN = -20.0  # log-probability of a character that occurs in no text


def learn_pieces(words: Mapping[str, int], alphabet: Collection[str], size: int) -> Pieces:
    """Learn pieces from words with their counts (Kudo, "Subword Regularization", 2018, 3.2).

    Starts from many substrings, estimates their probabilities, and drops those that contribute
    least to the likelihood. Uses the best segmentation of each word instead of all of them.

    Args:
        words: Words with their counts.
        alphabet: Characters that always stay pieces.
        size: Most pieces. Characters of the words that are not in the alphabet stay as far as
            they fit, the most frequent first.

    Returns:
        Pieces with their log-probabilities, the most probable first.
    """
    characters = set(alphabet).union(*words)
    counts = _candidates(words, size * _CANDIDATES)
    # A script with more than `size` characters, such as Chinese, keeps its most frequent ones.
    seen: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            seen[character] += count
    required = set(alphabet)
    others = sorted(characters - required, key=lambda c: (-seen[c], c))
    required.update(others[: max(0, size - len(required))])
    for character in required:
        counts[character] = seen[character]
    while True:
        scores = _scores(counts)
        for _ in range(2):
            scores = _scores(_count(words, scores, required))
        if len(scores) <= size:
            return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        counts = _prune(words, scores, required, max(size, int(len(scores) * _SHRINK)))


def _candidates(words: Mapping[str, int], limit: int) -> dict[str, int]:
    """The substrings with the largest occurrences × length."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + _MAX_PIECE_LENGTH) + 1):
                counts[word[start:end]] += count
    repeated = ((piece, count) for piece, count in counts.items() if count > 1)
    best = sorted(repeated, key=lambda item: (-item[1] * len(item[0]), item[0]))
    return dict(best[:limit])


def _scores(counts: Mapping[str, int]) -> dict[str, float]:
    """Log-probabilities of counts."""
    total = sum(counts.values())
    return {piece: math.log(count / total) if count else _UNSEEN for piece, count in counts.items()}


def _count(
    words: Mapping[str, int], scores: Mapping[str, float], required: Collection[str]
) -> dict[str, int]:
    """Uses of each piece in the best segmentation of all words, without unused pieces."""
    counts = dict.fromkeys(sorted(required), 0)
    for word, count in words.items():
        for piece in _segment(word, scores)[0]:
            counts[piece] = counts.get(piece, 0) + count
    return counts


def _prune(
    words: Mapping[str, int],
    scores: Mapping[str, float],
    required: Collection[str],
    size: int,
) -> dict[str, int]:
    """Counts of the `size` pieces whose removal would lower the likelihood most."""
    counts = _count(words, scores, required)
    costs = []
    for piece, count in counts.items():
        if piece not in required:
            without, alternative = _segment(piece, scores, without=piece)
            costs.append((count * (scores[piece] - alternative), piece, without))
    costs.sort(key=lambda item: (-item[0], item[1]))
    kept = size - len(required)
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
        for start in range(max(0, end - _MAX_PIECE_LENGTH), end):
            piece = word[start:end]
            score = scores.get(piece)
            if score is None or piece == without:
                if end - start > 1:
                    continue
                score = 2 * _UNSEEN  # unknown character, a last resort
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
