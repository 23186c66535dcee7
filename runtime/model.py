"""`Model`: text in, text out, above whichever engine runs the artifact.

Prompt, tokenization, limits and stop strings live here once, so that every format treats an input
alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from edge.runtime.artifact import TOKENIZER_NAME, Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback
from edge.runtime.errors import EdgeError, InputTooLongError, UsageError
from edge.runtime.generation import Generation, Timings
from edge.runtime.guardrails import (
    Guardrails,
    OnLong,
    OutputCheck,
    check_on_long,
    profile_options,
    without_prefix,
)
from edge.runtime.inference.aio import AsyncCalls
from edge.runtime.inference.call_lock import EngineLock
from edge.runtime.inference.pipeline import Call, Fields, answer_each, each_fields
from edge.runtime.inference.runner import Scoring, in_batches
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Prompt
from edge.runtime.text.stop_strings import StopWatcher, cut_at_stop
from edge.runtime.text.streaming import Stream
from edge.runtime.text.tokenization import Tokenizer

_BATCH_SIZE = 16

__all__ = ["Generation", "Model", "Timings", "load"]


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    verify: bool = False,
    guardrails: Guardrails | None = None,
) -> Model:
    """Open an artifact folder with the engine of its format.

    Args:
        path: the artifact folder.
        threads: how many threads compute; None takes what was tuned (at most the cores that there
            are), else one.
        settings: other engine settings in place of those in the manifest's `runtime` section, such
            as {"spinning": False}; docs/runtime.md lists them.
        verify: also check every file's sha256 (sizes are always checked).
        guardrails: lower limits, what to do with long inputs, and a check of the answers.

    Raises:
        ArtifactError: missing, truncated or altered, or of a newer schema.
        MissingExtraError: the engine's library is not installed.
        UsageError: a number of threads, or a setting, that there is not.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"threads must be from 1 to 1024, not {threads}")
    artifact = Artifact.open(path, verify=verify)
    engine_class = ENGINES.load(artifact.manifest.format)
    if settings:
        engine_class.check_settings(settings)
        runtime = {**artifact.manifest.runtime, **settings}
        artifact = replace(artifact, manifest=replace(artifact.manifest, runtime=runtime))
    return Model(artifact, engine_class(artifact, threads=threads), guardrails)


class Model(AsyncCalls, Scoring):
    """A loaded artifact. Safe to call from several threads; close it, or use it with `with`."""

    def __init__(
        self, artifact: Artifact, engine: Engine, guardrails: Guardrails | None = None
    ) -> None:
        manifest = artifact.manifest
        self.artifact = artifact
        self.engine = engine
        self.guardrails = guardrails or Guardrails()
        self.limits = self.guardrails.limits(manifest.limits)
        self.prompt = Prompt(manifest.prompt_template)
        self.defaults = self._defaults()
        self.tokenizer = Tokenizer(
            artifact.path(TOKENIZER_NAME), eos=manifest.architecture.eos_token_id
        )
        self.guard = EngineLock(exclusive=not engine.thread_safe, owned=engine)

    def _defaults(self) -> GenerationOptions:
        """The artifact's options, under the guardrails' profile and cap."""
        profile = profile_options(self.guardrails.profile, beams=self.engine.supports_beams)
        chosen = GenerationOptions().override({**self.artifact.manifest.generation, **profile})
        if chosen.max_new_tokens > (cap := self.limits.max_new_tokens):
            chosen = chosen.override({"max_new_tokens": cap})
        return chosen

    # -- generating ------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        texts: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
        batch_size: int = _BATCH_SIZE,
        output: OutputCheck | None = None,
        **options: Any,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
        batch_size: int = _BATCH_SIZE,
        output: OutputCheck | None = None,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
        batch_size: int = _BATCH_SIZE,
        output: OutputCheck | None = None,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Answer one text, or a list of them in the same order.

        Args:
            texts: a text or a list of texts; the artifact's prompt is put around each.
            fields: values for the prompt's other fields, such as {"task": "linux"}; one mapping
                for all texts, or one for each.
            on_long: what to do with an input over the limit, "error", "truncate", "chunk" or
                "fallback"; None takes the guardrails' choice, which is "error" if not set.
            batch_size: how many texts run at once.
            output: a check that each answer must pass; None takes the guardrails'.
            **options: of `GenerationOptions`; those left out are the artifact's defaults.

        Raises:
            UsageError: an unknown option or a bad value.
            InputTooLongError: an input over the limit, with on_long "error".
            OutputError: an answer that does not pass its check, decoded anew too.
            UnsupportedError: something this engine can't do.
        """
        several = [texts] if isinstance(texts, str) else texts
        call = self._call(options, on_long, batch_size, output)
        answers: list[Generation] = []
        for answer in answer_each(self, several, fields, call, strict=True):
            if isinstance(answer, EdgeError):
                raise answer
            answers.append(answer)
        return answers[0] if isinstance(texts, str) else answers

    def generate_each(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
        batch_size: int = _BATCH_SIZE,
        output: OutputCheck | None = None,
        before_batch: Callable[[], None] | None = None,
        **options: Any,
    ) -> list[Generation | EdgeError]:
        """Like `generate`, but a text that can't be answered gives its error in its place.

        `before_batch` is called before each run of the engine; what it raises ends the call.

        Raises:
            UsageError, UnsupportedError: something that concerns all texts, such as an option.
        """
        call = self._call(options, on_long, batch_size, output, before_batch)
        return answer_each(self, texts, fields, call, strict=False)

    def _call(
        self,
        options: Mapping[str, Any],
        on_long: OnLong | None,
        batch_size: int,
        output: OutputCheck | None,
        before_batch: Callable[[], None] | None = None,
    ) -> Call:
        chosen_long = self.guardrails.on_long if on_long is None else on_long
        check_on_long(chosen_long)
        return Call(
            options=self.options(options),
            guardrails=self.guardrails,
            on_long=chosen_long,
            batch_size=batch_size,
            output=self.guardrails.output if output is None else output,
            before_batch=before_batch,
        )

    def generate_tokens(
        self,
        input_ids: Sequence[int] | Sequence[Sequence[int]],
        *,
        batch_size: int = _BATCH_SIZE,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Like `generate` for token ids, which are used as given: prompt and eos are the caller's.

        Raises:
            UsageError: an empty row, or an id outside of the vocabulary.
            InputTooLongError: a row over the limit.
        """
        if len(input_ids) and not isinstance(input_ids[0], Sequence | np.ndarray):
            return self._generate_rows([input_ids], batch_size, options)[0]  # type: ignore[list-item]
        return self._generate_rows(input_ids, batch_size, options)  # type: ignore[arg-type]

    def _generate_rows(
        self, rows: Sequence[Sequence[int]], batch_size: int, options: Mapping[str, Any]
    ) -> list[Generation]:
        chosen = self.options(options)
        checked = [self.checked_ids(row) for row in rows]
        for ids in checked:
            self.check_length(len(ids))
        return self.run_rows(checked, [False] * len(checked), chosen, batch_size, 0.0)

    def stream(
        self,
        text: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
        **options: Any,
    ) -> Stream[Generation]:
        """Answer one text piece by piece: iterate over strings, then read `.result`.

        Greedy search or sampling; beams have no final text before their end, nor has an answer
        that is checked, or that is made of parts (on_long "chunk" and "fallback" are errors here
        for an input over the limit).

        Raises:
            UsageError: beams were asked for, the guardrails check the output, or a bad option.
            InputTooLongError: an input over the limit, unless on_long is "truncate".
        """
        if self.guardrails.output is not None:
            raise UsageError("answers of this model are checked as a whole and can't be streamed")
        chosen = self.options(options)
        if chosen.num_beams > 1 or chosen.num_return_sequences > 1:
            raise UsageError("stream needs num_beams 1 and num_return_sequences 1")
        self.engine.check_options(chosen)
        started = time.perf_counter()
        input_ids, truncated = self.encode([text], fields=fields, on_long=on_long)
        tokenize_ms = _milliseconds_since(started)

        def produce(emit: TokenCallback) -> Generation:
            return self.run_rows(input_ids, truncated, chosen, 1, tokenize_ms, emit)[0]

        return Stream(
            produce,
            lambda ids: self.tokenizer.decode([ids])[0],
            eos=self.tokenizer.eos,
            stop_strings=chosen.stop_strings,
        )

    # -- inputs ----------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> tuple[list[list[int]], list[bool]]:
        """The ids that the encoder reads for each text (prompt applied, eos last), and which of
        them were cut to the limit.

        Raises:
            UsageError: a field of the prompt is missing, or `on_long` is unknown.
            InputTooLongError: an input over the limit, unless on_long is "truncate".
        """
        chosen = self.guardrails.on_long if on_long is None else on_long
        check_on_long(chosen)
        own = each_fields(texts, fields)
        rows = self.tokenizer.encode([self.prompted(t, f) for t, f in zip(texts, own, strict=True)])
        limit = self.limits.max_input_tokens
        truncated = [len(row) > limit for row in rows]
        if chosen != "truncate":
            for row in rows:
                self.check_length(len(row))
        return [
            [*row[: limit - 1], self.tokenizer.eos] if cut else row
            for row, cut in zip(rows, truncated, strict=True)
        ], truncated

    def prompted(self, text: str, fields: Fields) -> str:
        """What the model reads for a text: the artifact's prompt around it.

        Raises:
            UsageError: a field of the prompt is missing, or the text is no Unicode.
        """
        if self.guardrails.enforce_prefix:
            text = without_prefix(text, self.prompt, fields)
        prompted = self.prompt.apply(text, fields)
        try:
            prompted.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON's "\ud800", say
            raise UsageError(
                f"the text is no valid Unicode: half a surrogate pair at character {error.start}"
            ) from None
        return prompted

    def check_length(self, length: int) -> None:
        """Refuse an input of more tokens than the limit (InputTooLongError)."""
        limit = self.limits.max_input_tokens
        if length > limit:
            raise InputTooLongError(
                f"the input has {length} tokens, this artifact takes {limit};"
                " shorten it, or choose otherwise with on_long='truncate' or 'chunk' (--on-long)"
            )

    def checked_ids(self, row: Sequence[int]) -> list[int]:
        """A row of token ids; empty or outside of the vocabulary is a UsageError."""
        ids = [int(token) for token in row]
        size = self.artifact.manifest.architecture.vocab_size
        if not ids:
            raise UsageError("a row of token ids is empty")
        if min(ids) < 0 or max(ids) >= size:
            raise UsageError(f"token ids must be from 0 to {size - 1}")
        return ids

    def options(self, options: Mapping[str, Any]) -> GenerationOptions:
        """The defaults with these in their place.

        Raises:
            UsageError: an unknown option, a bad value, or more new tokens than the limit.
        """
        chosen = self.defaults.override(options)
        limit = self.limits.max_new_tokens
        if chosen.max_new_tokens > limit:
            raise UsageError(
                f"max_new_tokens is {chosen.max_new_tokens}, this artifact's limit is {limit}"
            )
        return chosen

    # -- running ---------------------------------------------------------------------------------

    def run_rows(
        self,
        input_ids: list[list[int]],
        truncated: list[bool],
        options: GenerationOptions,
        batch_size: int,
        tokenize_ms: float,
        emit: TokenCallback | None = None,
        before_batch: Callable[[], None] | None = None,
    ) -> list[Generation]:
        """Answers to rows of ids that were checked; for the modules beside this one."""
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.engine.check_options(options)
        started = time.perf_counter()
        groups: list[list[Hypothesis]] = [[]] * len(input_ids)
        for rows in in_batches([len(ids) for ids in input_ids], batch_size):
            if before_batch is not None:
                before_batch()
            watcher = StopWatcher.for_options(options, self.tokenizer.decode, then=emit)
            with self.guard.call():
                found = self.engine.generate([input_ids[r] for r in rows], options, watcher)
            for row, hypotheses in zip(rows, found, strict=True):
                groups[row] = hypotheses
        generate_ms = _milliseconds_since(started)
        started = time.perf_counter()
        flat = [hypothesis for group in groups for hypothesis in group]
        texts = iter(self.tokenizer.decode([hypothesis.token_ids for hypothesis in flat]))
        pairs = [[(h, *cut_at_stop(next(texts), options.stop_strings)) for h in g] for g in groups]
        timings = Timings(tokenize_ms, generate_ms, _milliseconds_since(started))
        answers = []
        for row, group in enumerate(pairs):
            generations = [
                Generation(
                    text=text,
                    token_ids=hypothesis.token_ids,
                    score=hypothesis.score,
                    finish_reason="stop" if was_cut else hypothesis.finish_reason,
                    input_tokens=len(input_ids[row]),
                    truncated=truncated[row],
                    timings=timings,
                    steps=hypothesis.steps,
                )
                for hypothesis, text, was_cut in group
            ]
            answers.append(replace(generations[0], alternatives=tuple(generations[1:])))
        return answers

    # -- closing ---------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.guard.closed

    def close(self) -> None:
        """Wait for the calls under way, then free the engine. Closing twice does no harm."""
        if self.guard.close():
            self.engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
