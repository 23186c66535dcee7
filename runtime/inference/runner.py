"""An engine behind its lock: batches of token ids to answers or scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from edge.runtime.constraints.compiler import ConstraintCompiler
from edge.runtime.constraints.constraint import Constraint
from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback
from edge.runtime.errors import EdgeError, UsageError, first_line
from edge.runtime.generation import Generation, Timings
from edge.runtime.inference.adaptive_drafts import AdaptiveDrafts
from edge.runtime.inference.batching import batches_by_length
from edge.runtime.inference.call_lock import EngineLock
from edge.runtime.options import GenerationOptions
from edge.runtime.text.stop_strings import StopStringCriteria, cut_at_stop
from edge.runtime.text.tokenization import Tokenizer

BATCH_SIZE = 16  # default
# In one run of the engine, padding included: attention's memory grows with each row's square.
_MAX_RUN_TOKENS = BATCH_SIZE * 512


def milliseconds_since(started: float) -> float:
    """Milliseconds since a value of `time.perf_counter()`."""
    return (time.perf_counter() - started) * 1000


class EngineRunner:
    """Splits rows into batches, runs the engine under its lock and decodes the answers.

    The runner owns the engine: `close` frees it. What the engine's library raises, and an answer
    that no intact model gives, become an `EdgeError`.

    Args:
        engine: The engine.
        tokenizer: The artifact's tokenizer.
        constraints: Compiles the options' constraints.
        name: Name of the model in error messages, such as the artifact's folder.
        vocab_size: Number of ids that the engine may return.
        drafts: Counts the decoder steps of each answer.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        constraints: ConstraintCompiler,
        *,
        name: str,
        vocab_size: int,
        drafts: AdaptiveDrafts,
    ) -> None:
        self.engine = engine
        self.drafts = drafts
        self._tokenizer = tokenizer
        self._constraints = constraints
        self._name = name
        self._vocab_size = vocab_size
        self._lock = EngineLock(exclusive=not engine.thread_safe, owned=engine)

    def generate(
        self,
        input_ids: Sequence[Sequence[int]],
        truncated: Sequence[bool],
        options: GenerationOptions,
        *,
        batch_size: int = BATCH_SIZE,
        tokenize_ms: float = 0.0,
        on_token: TokenCallback | None = None,
        before_batch: Callable[[], None] | None = None,
    ) -> list[Generation]:
        """Answer rows of token ids, in the same order.

        Args:
            input_ids: Unpadded rows within the limits, eos included.
            truncated: Whether each row was truncated, for its answer.
            options: Generation options.
            batch_size: Most rows in one run of the engine; fewer where more than 8,192 tokens,
                padding included, would come together.
            tokenize_ms: Time that tokenization took, for the answers' timings.
            on_token: Called for each new token; see `TokenCallback`.
            before_batch: Called before each run of the engine; an exception ends the call.

        Raises:
            UsageError: `batch_size` is below 1, or the model is closed.
            UnsupportedError: The engine can't do what the options ask for.
            ConstraintError: Nothing can follow in an answer with a constraint.
            EdgeError: The engine failed.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.engine.check_options(options)
        constraint = self._constraints.compile(options)
        started = time.perf_counter()
        groups = self._run_batches(
            input_ids, options, constraint, batch_size, on_token=on_token, before_batch=before_batch
        )
        generate_ms = milliseconds_since(started)
        started = time.perf_counter()
        decoded = self._decode(groups, options, constraint)
        timings = Timings(tokenize_ms, generate_ms, milliseconds_since(started))
        answers = []
        for ids, was_truncated, group in zip(input_ids, truncated, decoded, strict=True):
            best, *others = [
                Generation(
                    text=text,
                    token_ids=hypothesis.token_ids,
                    score=hypothesis.score,
                    finish_reason="stop" if stopped else hypothesis.finish_reason,
                    input_tokens=len(ids),
                    truncated=was_truncated,
                    timings=timings,
                    steps=hypothesis.steps,
                    end_token_ids=hypothesis.all_token_ids[len(hypothesis.token_ids) :],
                )
                for hypothesis, text, stopped in group
            ]
            answers.append(replace(best, alternatives=tuple(others)))
        return answers

    def _run_batches(
        self,
        input_ids: Sequence[Sequence[int]],
        options: GenerationOptions,
        constraint: Constraint | None,
        batch_size: int,
        *,
        on_token: TokenCallback | None,
        before_batch: Callable[[], None] | None,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each row, best first; see `generate`."""
        groups: list[list[Hypothesis]] = [[]] * len(input_ids)
        lengths = [len(ids) for ids in input_ids]
        for batch in batches_by_length(lengths, batch_size, max_tokens=_MAX_RUN_TOKENS):
            if before_batch is not None:
                before_batch()
            callback = StopStringCriteria.for_options(
                options, self._tokenizer.decode, then=on_token
            )
            rows = [input_ids[row] for row in batch]
            matchers = [constraint.matcher(ids) for ids in rows] if constraint else None
            with self._lock.call(), self._library_errors():
                found = self.engine.generate(rows, options, self._checked(callback), matchers)
            self._check(found, len(batch))
            for hypotheses in found:
                self.drafts.observe(len(hypotheses[0].all_token_ids), hypotheses[0].steps)
            for row, hypotheses in zip(batch, found, strict=True):
                groups[row] = hypotheses
        return groups

    def _decode(
        self,
        groups: Sequence[Sequence[Hypothesis]],
        options: GenerationOptions,
        constraint: Constraint | None,
    ) -> list[list[tuple[Hypothesis, str, bool]]]:
        """Each hypothesis with its text, and whether a stop string cut that."""
        flat = [hypothesis for group in groups for hypothesis in group]
        texts = self._tokenizer.decode([hypothesis.all_token_ids for hypothesis in flat])
        if constraint is not None:
            self._check_texts(constraint, flat, texts)
        remaining = iter(texts)
        return [
            [
                (hypothesis, *cut_at_stop(next(remaining), options.stop_strings))
                for hypothesis in group
            ]
            for group in groups
        ]

    def score(
        self,
        input_ids: Sequence[Sequence[int]],
        target_ids: Sequence[Sequence[int]],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> list[np.ndarray]:
        """Log-probability (nats) of every target token; one float32 array of len(target) per row.

        Raises:
            UsageError: The model is closed.
            EdgeError: The engine failed.
        """
        results: list[np.ndarray] = [np.empty(0, np.float32)] * len(input_ids)
        lengths = [len(s) + len(t) for s, t in zip(input_ids, target_ids, strict=True)]
        for batch in batches_by_length(lengths, batch_size):
            with self._lock.call(), self._library_errors():
                scores = self.engine.score(
                    [input_ids[row] for row in batch], [target_ids[row] for row in batch]
                )
            for row, values in zip(batch, scores, strict=True):
                results[row] = values
        return results

    @contextlib.contextmanager
    def _library_errors(self) -> Iterator[None]:
        try:
            yield
        except EdgeError:
            raise
        except Exception as error:  # the libraries' exceptions have no common base class
            raise EdgeError(
                f"{self._name}: the {self.engine.format} engine failed ({first_line(error)})."
                " Check the artifact with edge verify"
            ) from error

    def _checked(self, callback: TokenCallback | None) -> TokenCallback | None:
        """The callback, called with valid token ids only."""
        if callback is None:
            return None

        def call(row: int, token: int) -> bool:
            self._check_ids((token,))
            return callback(row, token)

        return call

    def _check(self, found: Sequence[Sequence[Hypothesis]], rows: int) -> None:
        if len(found) != rows or not all(found):
            raise EdgeError(f"{self._name}: the engine returned too few answers")
        for group in found:
            for hypothesis in group:
                self._check_ids(hypothesis.all_token_ids)

    def _check_texts(
        self, constraint: Constraint, found: Sequence[Hypothesis], texts: Sequence[str]
    ) -> None:
        """Check that complete answers decode to the texts that the constraint accepted."""
        for hypothesis, text in zip(found, texts, strict=True):
            complete = hypothesis.finish_reason == "eos"
            if complete and constraint.text(hypothesis.all_token_ids) != text:
                raise EdgeError(
                    f"{self._name}: its tokenizer changes the text of a constrained answer to"
                    f" {text!r:.80}; check it without the constraint"
                )

    def _check_ids(self, ids: Sequence[int]) -> None:
        if ids and not 0 <= min(ids) <= max(ids) < self._vocab_size:
            raise EdgeError(
                f"{self._name}: the engine returned a token id outside the vocabulary of"
                f" {self._vocab_size}; the model's files are damaged"
            )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._lock.closed

    def close(self) -> None:
        """Wait for running calls, then free the engine. Closing twice is harmless."""
        if self._lock.close():
            self.engine.close()
