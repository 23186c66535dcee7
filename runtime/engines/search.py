"""Greedy search, sampling and beam search over a decoder that advances step by step.

The beam bookkeeping follows transformers' `GenerationMixin`, so that the same options give the same
tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.runtime.engines.base import Hypothesis, TokenCallback, Vocabulary
from edge.runtime.engines.generated_row import GeneratedRow, hypothesis_of
from edge.runtime.engines.logits import log_softmax, next_token, process_logits
from edge.runtime.engines.matcher import Matcher
from edge.runtime.options import GenerationOptions


class DecoderState(abc.ABC):
    """An encoded batch with the decoder's cache of past keys and values."""

    @abc.abstractmethod
    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Append tokens [batch, n] (int64) and return logits [batch, n, vocab_size] (float32)."""

    @abc.abstractmethod
    def reorder(self, rows: np.ndarray) -> None:
        """Replace row i of the batch by row rows[i]; rows may be repeated or left out."""

    @abc.abstractmethod
    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens of every row."""


def sample_search(
    state: DecoderState,
    batch: int,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    on_token: TokenCallback | None = None,
    matchers: Sequence[Matcher] | None = None,
) -> list[list[Hypothesis]]:
    """Greedy search or sampling.

    Rows that end leave the batch. Scores are the model's own log-probabilities, before penalties,
    temperature and constraints. Where the constraint of a lone row leaves no choice, its tokens are
    read by the decoder in one step.

    Args:
        state: The encoded batch; used up by the search.
        batch: Number of rows.
        options: Generation options with num_beams 1.
        vocabulary: Special ids, and ids that may be emitted.
        on_token: See `TokenCallback`.
        matchers: The state of each row's constraint at its start; not changed.

    Returns:
        For each row num_return_sequences hypotheses, best first.

    Raises:
        ConstraintError: The constraint of a row allows no token.
    """
    copies = options.num_return_sequences
    if copies > 1:
        state.reorder(np.repeat(np.arange(batch), copies))
    random = np.random.default_rng(options.seed)
    rows = [GeneratedRow([vocabulary.start]) for _ in range(batch * copies)]
    if matchers is not None:
        for index, row in enumerate(rows):
            row.matcher = matchers[index // copies].copy()
    active = list(range(len(rows)))
    while active:
        forced = rows[active[0]].forced(options, vocabulary) if len(active) == 1 else []
        reads = forced[:-1] if forced and forced[-1] in vocabulary.ends else forced
        last = np.array([[rows[row].past[-1], *reads] for row in active], dtype=np.int64)
        logits = state.advance(last)
        remaining = []
        for index, number in enumerate(active):
            row = rows[number]
            for place, scores in enumerate(logits[index]):
                if place < len(forced):
                    token = forced[place]
                else:
                    token = next_token(scores, row.past, options, vocabulary, random, row.matcher)
                row.append(token, scores)
                if token in vocabulary.ends:
                    row.finish_reason = "eos"
                if on_token is not None and on_token(number, token) and not row.finish_reason:
                    row.finish_reason = "stop"
                if row.finish_reason or len(row.past) > options.max_new_tokens:
                    break
                if row.matcher is not None and place == len(forced):
                    row.matcher.advance(token)
            else:
                remaining.append(index)
        if len(remaining) < len(active):
            if remaining:
                state.reorder(np.array(remaining))
            active = [active[index] for index in remaining]
    hypotheses = [row.hypothesis(vocabulary, options.length_penalty) for row in rows]
    grouped = [hypotheses[i : i + copies] for i in range(0, len(hypotheses), copies)]
    return [sorted(group, key=lambda h: -h.score) for group in grouped]


@dataclass(frozen=True)
class _Beam:
    """One hypothesis: `rank` is the sum after penalties, `log_prob` the model's own."""

    rank: float
    log_prob: float
    past: list[int]
    matcher: Matcher | None = None


@dataclass
class _BeamRow:
    """The beams of one input: running ones, and finished ones best first."""

    running: list[_Beam]
    finished: list[tuple[float, _Beam, str]] = field(default_factory=list)
    done: bool = False


def beam_search(
    state: DecoderState,
    batch: int,
    options: GenerationOptions,
    vocabulary: Vocabulary,
    on_token: TokenCallback | None = None,
    matchers: Sequence[Matcher] | None = None,
) -> list[list[Hypothesis]]:
    """Beam search as in transformers.

    Each step considers 2 × num_beams candidates per row. Finished beams are ranked by
    score / length ** length_penalty. A row ends when no running beam can still improve it.
    Source: Freitag and Al-Onaizan 2017 (arXiv:1702.01806) and `GenerationMixin._beam_search`.

    Args:
        state: The encoded batch; used up by the search.
        batch: Number of rows.
        options: Generation options with num_beams above 1.
        vocabulary: Special ids, and ids that may be emitted.
        on_token: Not used; beams have no final token before the end.
        matchers: The state of each row's constraint at its start; each beam has a copy.

    Returns:
        For each row num_return_sequences hypotheses, best first; fewer if a constraint
        has fewer answers.

    Raises:
        ConstraintError: The constraint of a row allows no token.
    """
    width = options.num_beams
    starts = [None] * batch if matchers is None else matchers
    rows = [_BeamRow([_Beam(0.0, 0.0, [vocabulary.start], start)]) for start in starts]
    for step in range(options.max_new_tokens):
        # The state's batch holds the running beams of the unfinished rows, in order.
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
            hypothesis_of(beam.past, beam.log_prob, reason, vocabulary, options.length_penalty)
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
    """Extend the beams of one row by a token; returns the parent of each running beam.

    `log_probs` is [running beams, vocab]; `length` counts the new tokens including this one.
    """
    width = options.num_beams
    totals = np.stack(
        [
            process_logits(row_log_probs, beam.past, options, vocabulary, beam.matcher)
            + np.float32(beam.rank)
            for row_log_probs, beam in zip(log_probs, row.running, strict=True)
        ]
    )
    flat = totals.ravel()
    keep = min(2 * width, flat.size)
    best = np.argpartition(-flat, keep - 1)[:keep]
    best = best[np.argsort(-flat[best], kind="stable")]
    last_step = length >= options.max_new_tokens
    running: list[_Beam] = []
    chosen: list[int] = []
    for rank, index in enumerate(best):
        origin, token = divmod(int(index), totals.shape[1])
        value = float(flat[index])
        if value == -np.inf:
            continue
        parent = row.running[origin]
        log_prob = parent.log_prob + float(log_probs[origin, token])
        past = [*parent.past, token]
        ended = token in vocabulary.ends
        if ended or last_step:
            # Only the best `width` candidates may finish: a poor early eos must not win.
            if rank < width:
                reason = "eos" if ended else "length"
                beam = _Beam(value, log_prob, past)
                row.finished.append((value / length**options.length_penalty, beam, reason))
        elif len(running) < width:
            running.append(_Beam(value, log_prob, past, _advanced(parent.matcher, token)))
            chosen.append(origin)
    if not running and not row.finished and row.running[0].matcher is not None:
        raise row.running[0].matcher.dead_end()
    row.finished = sorted(row.finished, key=lambda item: -item[0])[:width]
    row.done = last_step or not running or _is_complete(row, running, options, length)
    row.running = running
    return chosen


def _advanced(matcher: Matcher | None, token: int) -> Matcher | None:
    """A copy of a beam's matcher after one more token."""
    if matcher is None:
        return None
    following = matcher.copy()
    following.advance(token)
    return following


def _is_complete(
    row: _BeamRow,
    running: list[_Beam],
    options: GenerationOptions,
    length: int,
) -> bool:
    if len(row.finished) < options.num_beams:
        return False
    if options.early_stopping:
        return True
    return bool(running[0].rank / length**options.length_penalty <= row.finished[-1][0])
