"""`Model`: text in, text out, above whichever engine runs the artifact.

Prompt, tokenisation, limits and stop strings live here once, so that every format treats an input
alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from edge.runtime.artifact import TOKENIZER_NAME, Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback
from edge.runtime.errors import InputTooLongError, UsageError
from edge.runtime.guard import CallGuard
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Prompt
from edge.runtime.stopping import StopWatcher, cut_at_stop
from edge.runtime.streaming import Stream
from edge.runtime.tokenization import Tokenizer

Fields = Mapping[str, object]
OnLong = Literal["error", "truncate"]
_BATCH_SIZE = 16


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one call; a batch's rows share them."""

    tokenize_ms: float
    generate_ms: float
    detokenize_ms: float

    @property
    def total_ms(self) -> float:
        return self.tokenize_ms + self.generate_ms + self.detokenize_ms


@dataclass(frozen=True)
class Generation:
    """One answer.

    `token_ids` leave out the start token and eos; `score` is the mean log-probability per token in
    nats (eos counted; with another length_penalty, the sum divided by length ** length_penalty);
    `finish_reason` is "eos", "length" or "stop"; `input_tokens` counts eos; `truncated` says that
    the input was cut to the limit; `steps` is how many decoder steps the answer took where tokens
    were drafted from the input (prompt_lookup_num_tokens), else None. `alternatives` holds the
    further sequences of num_return_sequences, best first.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float
    finish_reason: str
    input_tokens: int
    truncated: bool
    timings: Timings
    steps: int | None = None
    alternatives: tuple[Generation, ...] = ()


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    verify: bool = False,
) -> Model:
    """Open an artifact folder with the engine of its format.

    Args:
        path: the artifact folder.
        threads: how many threads compute; None takes what was tuned (at most the cores that there
            are), else one.
        settings: other engine settings in place of those in the manifest's `runtime` section, such
            as {"spinning": False}; docs/runtime.md lists them.
        verify: also check every file's sha256 (sizes are always checked).

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
    return Model(artifact, engine_class(artifact, threads=threads))


class Model:
    """A loaded artifact. Safe to call from several threads; close it, or use it with `with`."""

    def __init__(self, artifact: Artifact, engine: Engine) -> None:
        manifest = artifact.manifest
        self.artifact = artifact
        self.engine = engine
        self.prompt = Prompt(manifest.prompt_template)
        self.defaults = GenerationOptions().override(manifest.generation)
        self.tokenizer = Tokenizer(
            artifact.path(TOKENIZER_NAME), eos=manifest.architecture.eos_token_id
        )
        self._guard = CallGuard(exclusive=not engine.thread_safe)

    # -- generating ------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        texts: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong = "error",
        batch_size: int = _BATCH_SIZE,
        **options: Any,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong = "error",
        batch_size: int = _BATCH_SIZE,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong = "error",
        batch_size: int = _BATCH_SIZE,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Answer one text, or a list of them in the same order.

        Args:
            texts: a text or a list of texts; the artifact's prompt is put around each.
            fields: values for the prompt's other fields, such as {"task": "linux"}; one mapping
                for all texts, or one for each.
            on_long: what to do with an input over the artifact's limit: "error" or "truncate".
            batch_size: how many texts run at once.
            **options: of `GenerationOptions`; those left out are the artifact's defaults.

        Raises:
            UsageError: an unknown option or a bad value.
            InputTooLongError: an input over the limit, with on_long "error".
            UnsupportedError: something this engine can't do.
        """
        if isinstance(texts, str):
            return self.generate(
                [texts], fields=fields, on_long=on_long, batch_size=batch_size, **options
            )[0]
        chosen = self._options(options)
        started = time.perf_counter()
        input_ids, truncated = self.encode(texts, fields=fields, on_long=on_long)
        tokenize_ms = _milliseconds_since(started)
        return self._run(input_ids, truncated, chosen, batch_size, tokenize_ms)

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
        chosen = self._options(options)
        checked = [self._checked_ids(row) for row in rows]
        for ids in checked:
            self._check_length(len(ids))
        return self._run(checked, [False] * len(checked), chosen, batch_size, 0.0)

    def stream(
        self,
        text: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong = "error",
        **options: Any,
    ) -> Stream[Generation]:
        """Answer one text piece by piece: iterate over strings, then read `.result`.

        Greedy search or sampling; beams have no final text before their end.

        Raises:
            UsageError: beams were asked for, or a bad option.
        """
        chosen = self._options(options)
        if chosen.num_beams > 1 or chosen.num_return_sequences > 1:
            raise UsageError("stream needs num_beams 1 and num_return_sequences 1")
        self.engine.check_options(chosen)
        started = time.perf_counter()
        input_ids, truncated = self.encode([text], fields=fields, on_long=on_long)
        tokenize_ms = _milliseconds_since(started)

        def produce(emit: TokenCallback) -> Generation:
            return self._run(input_ids, truncated, chosen, 1, tokenize_ms, emit)[0]

        return Stream(
            produce,
            lambda ids: self.tokenizer.decode([ids])[0],
            eos=self.tokenizer.eos,
            stop_strings=chosen.stop_strings,
        )

    # -- scoring ---------------------------------------------------------------------------------

    @overload
    def score(  # type: ignore[overload-overlap]
        self, inputs: str, targets: str, *, fields: Fields | None = None, on_long: OnLong = "error"
    ) -> np.ndarray: ...

    @overload
    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong = "error",
    ) -> list[np.ndarray]: ...

    def score(
        self,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong = "error",
    ) -> np.ndarray | list[np.ndarray]:
        """Log-probability (nats) of every token of the target, eos included, given the input.

        Returns a float32 array for one pair, a list of arrays for lists.
        """
        if isinstance(inputs, str) != isinstance(targets, str):
            raise UsageError("score wants two texts, or two lists of texts")
        if isinstance(inputs, str):
            assert isinstance(targets, str)
            return self.score([inputs], [targets], fields=fields, on_long=on_long)[0]
        input_ids, _ = self.encode(inputs, fields=fields, on_long=on_long)
        return self.score_tokens(input_ids, self.tokenizer.encode(targets))

    def score_tokens(
        self,
        input_ids: Sequence[Sequence[int]],
        target_ids: Sequence[Sequence[int]],
        *,
        batch_size: int = _BATCH_SIZE,
    ) -> list[np.ndarray]:
        """Like `score` for token ids; targets are without the start token."""
        if len(input_ids) != len(target_ids):
            raise UsageError(f"{len(input_ids)} inputs but {len(target_ids)} targets")
        sources = [self._checked_ids(row) for row in input_ids]
        targets = [self._checked_ids(row) for row in target_ids]
        results: list[np.ndarray] = [np.empty(0, np.float32)] * len(sources)
        for rows in _batches(
            [len(s) + len(t) for s, t in zip(sources, targets, strict=True)], batch_size
        ):
            with self._guard.call():
                scores = self.engine.score([sources[r] for r in rows], [targets[r] for r in rows])
            for row, values in zip(rows, scores, strict=True):
                results[row] = values
        return results

    # -- inputs ----------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong = "error",
    ) -> tuple[list[list[int]], list[bool]]:
        """The ids that the encoder reads for each text (prompt applied, eos last), and which of
        them were cut to the limit.

        Raises:
            UsageError: a field of the prompt is missing, or `on_long` is unknown.
            InputTooLongError: an input over the limit, with on_long "error".
        """
        if on_long not in ("error", "truncate"):
            raise UsageError(f"on_long must be 'error' or 'truncate', not {on_long!r}")
        for text in texts:
            if not isinstance(text, str):
                raise UsageError(f"a text must be a str, not {type(text).__name__}")
        if fields is None or isinstance(fields, Mapping):
            fields = [fields or {}] * len(texts)
        if len(fields) != len(texts):
            raise UsageError(f"{len(texts)} texts but {len(fields)} sets of fields")
        prompts = [self.prompt.apply(t, f) for t, f in zip(texts, fields, strict=True)]
        rows = self.tokenizer.encode(prompts)
        limit = self.artifact.manifest.limits.max_input_tokens
        truncated = [len(row) > limit for row in rows]
        if on_long == "error":
            for row in rows:
                self._check_length(len(row))
        return [
            [*row[: limit - 1], self.tokenizer.eos] if cut else row
            for row, cut in zip(rows, truncated, strict=True)
        ], truncated

    def _check_length(self, length: int) -> None:
        limit = self.artifact.manifest.limits.max_input_tokens
        if length > limit:
            raise InputTooLongError(
                f"the input has {length} tokens, this artifact takes {limit};"
                " shorten it, or cut it with on_long='truncate' (--on-long truncate)"
            )

    def _checked_ids(self, row: Sequence[int]) -> list[int]:
        ids = [int(token) for token in row]
        size = self.artifact.manifest.architecture.vocab_size
        if not ids:
            raise UsageError("a row of token ids is empty")
        if min(ids) < 0 or max(ids) >= size:
            raise UsageError(f"token ids must be from 0 to {size - 1}")
        return ids

    def _options(self, options: Mapping[str, Any]) -> GenerationOptions:
        chosen = self.defaults.override(options)
        limit = self.artifact.manifest.limits.max_new_tokens
        if chosen.max_new_tokens > limit:
            raise UsageError(
                f"max_new_tokens is {chosen.max_new_tokens}, this artifact's limit is {limit}"
            )
        return chosen

    # -- running ---------------------------------------------------------------------------------

    def _run(
        self,
        input_ids: list[list[int]],
        truncated: list[bool],
        options: GenerationOptions,
        batch_size: int,
        tokenize_ms: float,
        emit: TokenCallback | None = None,
    ) -> list[Generation]:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.engine.check_options(options)
        started = time.perf_counter()
        groups: list[list[Hypothesis]] = [[]] * len(input_ids)
        for rows in _batches([len(ids) for ids in input_ids], batch_size):
            watcher = StopWatcher.for_options(options, self.tokenizer.decode, then=emit)
            with self._guard.call():
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
        return self._guard.closed

    def close(self) -> None:
        """Wait for the calls under way, then free the engine. Closing twice does no harm."""
        if self._guard.close():
            self.engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
