"""Greedy search, sampling and beam search over a decoder that takes one step at a time.

The order of the logits processors and the beam bookkeeping follow transformers'
`GenerationMixin`, so that the same options give the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge.runtime.engines.base import Hypothesis, TokenCallback, Vocabulary
from edge.runtime.options import GenerationOptions

if TYPE_CHECKING:
    from edge.runtime.engines.stepping import DecoderState

_MINUS_INFINITY = np.float32(-np.inf)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities over the last axis, in float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def process_logits(
    scores: np.ndarray, past: list[int], options: GenerationOptions, vocabulary: Vocabulary
) -> np.ndarray:
    """One row's scores [vocab] with what may not follow taken out; `past` starts with the start
    token, as transformers' decoder_input_ids do. Works on a copy."""
    scores = scores.copy()
    scores[vocabulary.pieces :] = _MINUS_INFINITY  # no piece of text behind these ids
    if options.repetition_penalty != 1.0:
        seen = np.unique(past)
        values = scores[seen]
        penalty = options.repetition_penalty
        scores[seen] = np.where(values < 0, values * penalty, values / penalty)
    if options.no_repeat_ngram_size:
        scores[_banned_by_ngrams(past, options.no_repeat_ngram_size)] = _MINUS_INFINITY
    if len(past) - 1 < options.min_new_tokens:
        scores[vocabulary.eos] = _MINUS_INFINITY
    return scores


def _banned_by_ngrams(past: list[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram which `past` holds already."""
    if len(past) < size:
        return []
    tail = tuple(past[len(past) - size + 1 :])
    starts = range(len(past) - size + 1)
    return [past[i + size - 1] for i in starts if tuple(past[i : i + size - 1]) == tail]


def _next_token(
    logits: np.ndarray,
    past: list[int],
    options: GenerationOptions,
    vocabulary: Vocabulary,
    random: np.random.Generator,
) -> int:
    """The token that follows `past`, from one row's logits [vocab]."""
    if not options.is_plain_greedy:
        return _pick(process_logits(logits, past, options, vocabulary), options, random)
    # Greedy search reads the row where it lies: it may be the engine's own memory.
    best = int(logits[: vocabulary.pieces].argmax())
    if best == vocabulary.eos and len(past) - 1 < options.min_new_tokens:
        return int(process_logits(logits, past, options, vocabulary).argmax())
    return best


def _pick(scores: np.ndarray, options: GenerationOptions, random: np.random.Generator) -> int:
    """The next token from processed scores: the best, or one drawn after temperature and cuts."""
    if not options.do_sample:
        return int(scores.argmax())
    scores = scores / np.float32(options.temperature)
    if 0 < options.top_k < scores.size:
        threshold = np.partition(scores, -options.top_k)[-options.top_k]
        scores = np.where(scores < threshold, _MINUS_INFINITY, scores)
    order = np.argsort(-scores, kind="stable")
    probabilities = np.exp(log_softmax(scores[order]).astype(np.float64))
    if options.top_p < 1.0:
        # Keep the smallest set whose mass reaches top_p; the best token always stays.
        before = np.cumsum(probabilities) - probabilities
        probabilities[before >= options.top_p] = 0.0
    probabilities /= probabilities.sum()
    return int(order[random.choice(order.size, p=probabilities)])


@dataclass
class _Row:
    past: list[int]
    log_prob: float = 0.0
    finish_reason: str = ""

    def hypothesis(self, vocabulary: Vocabulary, length_penalty: float) -> Hypothesis:
        return _hypothesis(
            self.past, self.log_prob, self.finish_reason or "length", vocabulary, length_penalty
        )


def _hypothesis(
    past: list[int],
    log_prob: float,
    finish_reason: str,
    vocabulary: Vocabulary,
    length_penalty: float,
) -> Hypothesis:
    tokens = past[1:]
    score = log_prob / max(1, len(tokens)) ** length_penalty
    if finish_reason == "eos":
        tokens = tokens[:-1]
    return Hypothesis(tuple(tokens), score, finish_reason)


def sample_search(
    state: DecoderState,
    batch: int,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    on_token: TokenCallback | None = None,
) -> list[list[Hypothesis]]:
    """Greedy search or sampling; rows that end leave the batch.

    Scores are the model's own log-probabilities, before penalties and temperature.
    """
    copies = options.num_return_sequences
    if copies > 1:
        state.reorder(np.repeat(np.arange(batch), copies))
    random = np.random.default_rng(options.seed)
    rows = [_Row([vocabulary.start]) for _ in range(batch * copies)]
    active = list(range(len(rows)))
    for _ in range(options.max_new_tokens):
        last = np.array([[rows[row].past[-1]] for row in active], dtype=np.int64)
        logits = state.advance(last)[:, -1]
        still = []
        for place, row in enumerate(active):
            token = _next_token(logits[place], rows[row].past, options, vocabulary, random)
            rows[row].log_prob += _log_prob(logits[place], token)
            rows[row].past.append(token)
            stopped = on_token is not None and on_token(row, token)
            if token == vocabulary.eos:
                rows[row].finish_reason = "eos"
            elif stopped:
                rows[row].finish_reason = "stop"
            else:
                still.append(place)
        if not still:
            break
        if len(still) < len(active):
            state.reorder(np.array(still))
            active = [active[place] for place in still]
    hypotheses = [row.hypothesis(vocabulary, options.length_penalty) for row in rows]
    grouped = [hypotheses[i : i + copies] for i in range(0, len(hypotheses), copies)]
    return [sorted(group, key=lambda h: -h.score) for group in grouped]


def _log_prob(logits: np.ndarray, token: int) -> float:
    """The log-probability of one token, without building the whole distribution."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum()))


@dataclass(frozen=True)
class _Beam:
    """`rank` is the sum that beams compete by, `log_prob` the model's own; penalties differ."""

    rank: float
    log_prob: float
    past: list[int]


@dataclass
class _BeamRow:
    """The beams of one input: those that run and those that ended, best first."""

    running: list[_Beam]
    finished: list[tuple[float, _Beam, str]] = field(default_factory=list)
    done: bool = False


def beam_search(
    state: DecoderState,
    batch: int,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    on_token: TokenCallback | None = None,
) -> list[list[Hypothesis]]:
    """Beam search as transformers does it: 2 × num_beams candidates a step, ended beams ranked by
    score / length ** length_penalty, and a stop once no running beam can still get in.

    Source: Freitag and Al-Onaizan 2017 (arXiv:1702.01806) and `GenerationMixin._beam_search`.
    """
    width = options.num_beams
    rows = [_BeamRow([_Beam(0.0, 0.0, [vocabulary.start])]) for _ in range(batch)]
    for step in range(options.max_new_tokens):
        # The state's batch is always the running beams of the rows that are not done, in order.
        active = [row for row in rows if not row.done]
        last = [[beam.past[-1]] for row in active for beam in row.running]
        log_probs = log_softmax(state.advance(np.array(last, dtype=np.int64))[:, -1])
        origins: list[int] = []
        first = 0
        for row in active:
            count = len(row.running)
            chosen = _advance_row(
                row, log_probs[first : first + count], options, vocabulary, step + 1
            )
            if not row.done:
                origins += [first + beam for beam in chosen]
            first += count
        if not origins:
            break
        state.reorder(np.array(origins))
    for row in rows:
        row.finished.sort(key=lambda ended: -ended[0])
    return [
        [
            _hypothesis(beam.past, beam.log_prob, reason, vocabulary, options.length_penalty)
            for _, beam, reason in row.finished[: min(width, options.num_return_sequences)]
        ]
        for row in rows
    ]


def _advance_row(
    row: _BeamRow,
    log_probs: np.ndarray,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    length: int,
) -> list[int]:
    """Extend the beams of one row by a token; returns which beam each running one came from.

    `log_probs` is [running beams, vocab]; `length` counts the new tokens including this one.
    """
    width = options.num_beams
    totals = np.stack(
        [
            process_logits(own, beam.past, options, vocabulary) + np.float32(beam.rank)
            for own, beam in zip(log_probs, row.running, strict=True)
        ]
    )
    flat = totals.ravel()
    keep = min(2 * width, flat.size)
    best = np.argpartition(-flat, keep - 1)[:keep]
    best = best[np.argsort(-flat[best], kind="stable")]
    last_step = length >= options.max_new_tokens
    running: list[_Beam] = []
    chosen: list[int] = []
    for rank, place in enumerate(best):
        origin, token = divmod(int(place), totals.shape[1])
        value = float(flat[place])
        if value == -np.inf:
            continue
        parent = row.running[origin]
        own_log_prob = parent.log_prob + float(log_probs[origin, token])
        beam = _Beam(value, own_log_prob, [*parent.past, token])
        ended = token == vocabulary.eos
        if ended or last_step:
            # Only what ranks among the first `width` may end: a poor early eos must not win.
            if rank < width:
                reason = "eos" if ended else "length"
                row.finished.append((value / length**options.length_penalty, beam, reason))
        elif len(running) < width:
            running.append(beam)
            chosen.append(origin)
    row.finished = sorted(row.finished, key=lambda item: -item[0])[:width]
    row.done = last_step or not running or _complete(row, running, options, length)
    row.running = running
    return chosen


def _complete(
    row: _BeamRow,
    running: list[_Beam],
    options: GenerationOptions,
    length: int,
) -> bool:
    if len(row.finished) < options.num_beams:
        return False
    if options.early_stopping:
        return True
    return running[0].rank / length**options.length_penalty <= row.finished[-1][0]
