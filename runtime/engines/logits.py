"""Logits processors and the choice of the next token, in numpy.

The order of the processors follows transformers' `GenerationMixin`, so that the same options give
the same tokens.
"""

from __future__ import annotations

import numpy as np

from edge.runtime.engines.base import Vocabulary
from edge.runtime.engines.matcher import Matcher
from edge.runtime.options import GenerationOptions

_MINUS_INFINITY = np.float32(-np.inf)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities over the last axis, in float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def token_log_prob(logits: np.ndarray, token: int) -> float:
    """Natural log-probability of one token under logits [vocab], without the whole distribution."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum()))


def process_logits(
    scores: np.ndarray,
    past: list[int],
    options: GenerationOptions,
    vocabulary: Vocabulary,
    matcher: Matcher | None = None,
) -> np.ndarray:
    """Apply penalties, bans and a constraint to one row.

    Args:
        scores: Logits or log-probabilities [vocab]; not changed.
        past: The row's tokens so far, start token first, like transformers' decoder_input_ids.
        options: Penalties, n-gram size and minimum length.
        vocabulary: Ids that may be emitted, and eos.
        matcher: The row's constraint. Bans that would leave none of its tokens are dropped.

    Returns:
        Scores [vocab], with minus infinity for tokens that may not follow; for all of them at a
        dead end of the constraint.
    """
    unchanged, scores = scores, scores.copy()
    scores[vocabulary.pieces :] = _MINUS_INFINITY  # these ids have no text
    if options.repetition_penalty != 1.0:
        seen = np.unique(past)
        values = scores[seen]
        penalty = options.repetition_penalty
        scores[seen] = np.where(values < 0, values * penalty, values / penalty)
    if options.no_repeat_ngram_size:
        scores[_banned_by_ngrams(past, options.no_repeat_ngram_size)] = _MINUS_INFINITY
    if len(past) - 1 < options.min_new_tokens:
        scores[list(vocabulary.ends)] = _MINUS_INFINITY
    if matcher is None:
        return scores
    masked = matcher.mask(scores)
    return masked if masked.max() > _MINUS_INFINITY else matcher.mask(unchanged)


def _banned_by_ngrams(past: list[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram that `past` already contains."""
    if len(past) < size:
        return []
    tail = tuple(past[len(past) - size + 1 :])
    starts = range(len(past) - size + 1)
    return [past[i + size - 1] for i in starts if tuple(past[i : i + size - 1]) == tail]


def next_token(
    logits: np.ndarray,
    past: list[int],
    options: GenerationOptions,
    vocabulary: Vocabulary,
    random: np.random.Generator,
    matcher: Matcher | None = None,
) -> int:
    """The token that follows `past`: the best one, or a sampled one.

    Args:
        logits: Logits [vocab] of one row; not changed.
        past: The row's tokens so far, start token first.
        options: Sampling, penalties and minimum length.
        vocabulary: Ids that may be emitted, and eos.
        random: Draws the samples.
        matcher: The row's constraint.

    Raises:
        ConstraintError: The constraint allows no token.
    """
    if matcher is not None:
        return _next_allowed(logits, past, options, vocabulary, random, matcher)
    if not options.is_plain_greedy:
        return _pick(process_logits(logits, past, options, vocabulary), options, random)
    # Without a copy: the row may be the engine's own memory.
    best = int(logits[: vocabulary.pieces].argmax())
    if best in vocabulary.ends and len(past) - 1 < options.min_new_tokens:
        return int(process_logits(logits, past, options, vocabulary).argmax())
    return best


def _next_allowed(
    logits: np.ndarray,
    past: list[int],
    options: GenerationOptions,
    vocabulary: Vocabulary,
    random: np.random.Generator,
    matcher: Matcher,
) -> int:
    if options.is_plain_greedy and len(past) > options.min_new_tokens:
        scores = matcher.mask(logits)
    else:
        scores = process_logits(logits, past, options, vocabulary, matcher)
    best = int(scores.argmax())
    if scores[best] == _MINUS_INFINITY:
        raise matcher.dead_end()
    return _pick(scores, options, random) if options.do_sample else best


def _pick(scores: np.ndarray, options: GenerationOptions, random: np.random.Generator) -> int:
    """The best token, or one sampled after temperature, top_k and top_p."""
    if not options.do_sample:
        return int(scores.argmax())
    scores = scores / np.float32(options.temperature)
    if 0 < options.top_k < scores.size:
        threshold = np.partition(scores, -options.top_k)[-options.top_k]
        scores = np.where(scores < threshold, _MINUS_INFINITY, scores)
    order = np.argsort(-scores, kind="stable")
    probabilities = np.exp(log_softmax(scores[order]).astype(np.float64))
    if options.top_p < 1.0:
        # The smallest set whose probability reaches top_p; the best token always stays.
        before = np.cumsum(probabilities) - probabilities
        probabilities[before >= options.top_p] = 0.0
    probabilities /= probabilities.sum()
    return int(order[random.choice(order.size, p=probabilities)])


def seed_of_copy(seed: int | None, copy: int) -> int | None:
    """A separate seed for each sequence of a row; the first keeps the given one."""
    if seed is None or copy == 0:
        return seed
    return int(np.random.SeedSequence([seed, copy]).generate_state(1)[0])
