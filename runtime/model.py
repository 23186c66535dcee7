"""`load` and `Model`: text in, text out, on the engine of the artifact's format."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.engines.base import TokenCallback
from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.guardrails import Guardrails, OnLong, OutputCheck
from edge.runtime.hub.artifacts import artifact_folder
from edge.runtime.inference.aio import AsyncCalls
from edge.runtime.inference.encoder import Fields
from edge.runtime.inference.pipeline import Call, answer_each
from edge.runtime.inference.runner import BATCH_SIZE, milliseconds_since
from edge.runtime.inference.token_model import TokenModel
from edge.runtime.text.streaming import Stream


def load(
    path: str | Path,
    *,
    revision: str | None = None,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    verify: bool = False,
    trust_code: bool = False,
    guardrails: Guardrails | None = None,
) -> Model:
    """Open an artifact with the engine of its format.

    Args:
        path: The artifact folder, or OWNER/NAME on the Hugging Face hub (extra `hub`). A folder of
            that name wins.
        revision: Branch, tag or commit on the hub.
        threads: Number of threads that the engine computes with. None takes the tuned number, at
            most the cores of this machine, or one if the artifact was not tuned.
        settings: Settings that replace those in the manifest's `runtime` section, such as
            `{"spinning": False}`; docs/runtime.md lists them.
        verify: Also check the sha256 of every file. Sizes are always checked.
        trust_code: Load a TorchScript artifact that this user did not export on this machine.
            TorchScript is code, and loading it runs it. The other formats hold data.
        guardrails: Lower limits, what to do with long inputs, and a check of the answers.

    Returns:
        The loaded model. Close it, or use it in a `with` statement.

    Raises:
        ArtifactError: The artifact is missing, truncated, altered, of a newer schema, or
            TorchScript that is not trusted; or the hub can't be reached.
        MissingExtraError: The engine's library, or that of the hub, is not installed.
        UnsupportedError: The engine's library can't run this artifact on this machine.
        UsageError: Invalid thread count or unknown setting.

    Example:
        >>> from edge.runtime import load
        >>> with load("artifacts/onnx-int8") as model:
        ...     print(model.generate("what is the uh the capital of France").text)
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"threads must be from 1 to 1024, not {threads}")
    artifact = Artifact.open(artifact_folder(path, revision), verify=verify, trust_code=trust_code)
    engine_class = ENGINES.load(artifact.manifest.format)
    if settings:
        of_engine = {name: value for name, value in settings.items() if name != "drafts"}
        engine_class.check_settings(of_engine)
        runtime = {**artifact.manifest.runtime, **settings}
        artifact = replace(artifact, manifest=replace(artifact.manifest, runtime=runtime))
    return Model(artifact, engine_class(artifact, threads=threads), guardrails)


class Model(TokenModel, AsyncCalls):
    """A loaded artifact: text in, text out. Safe to call from several threads.

    Made by `load`. Close it, or use it in a `with` statement.
    """

    @overload
    def generate(
        self,
        texts: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
        batch_size: int = BATCH_SIZE,
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
        batch_size: int = BATCH_SIZE,
        output: OutputCheck | None = None,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
        batch_size: int = BATCH_SIZE,
        output: OutputCheck | None = None,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Answer a text or a list of texts.

        Args:
            texts: A text, or a list of texts. The artifact's prompt is put around each.
            fields: Values of the prompt's other fields, such as `{"task": "linux"}`: one mapping
                for all texts, or a list with one for each.
            on_long: What to do with an input over the limit: "error", "truncate", "chunk" or
                "fallback". None takes the guardrails' choice, "error" by default.
            batch_size: Most texts in one run of the engine, which has at most 8,192 tokens.
            output: A check that each answer must pass. None takes the guardrails' check.
            **options: Fields of `GenerationOptions` that replace the model's defaults.

        Returns:
            A `Generation` for a text, or a list of them in the order of the texts.

        Raises:
            UsageError: Unknown option, invalid value, or the model is closed.
            InputTooLongError: An input over the limit, with `on_long` "error".
            OutputError: An answer fails its check, also when decoded again.
            UnsupportedError: The engine can't do what the options ask for.
            ConstraintError: Nothing can follow in an answer with a constraint.

        Example:
            >>> answer = model.generate("how do I list uh all files", num_beams=4)
            >>> answer.text, answer.score, answer.timings.total_ms
            >>> answers = model.generate(["first text", "second text"], max_new_tokens=32)
        """
        call = self._call(options, on_long, batch_size, output)
        several = [texts] if isinstance(texts, str) else texts
        answers: list[Generation] = []
        for answer in answer_each(self.encoder, self._runner, several, fields, call, strict=True):
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
        batch_size: int = BATCH_SIZE,
        output: OutputCheck | None = None,
        before_batch: Callable[[], None] | None = None,
        **options: Any,
    ) -> list[Generation | EdgeError]:
        """Like `generate`, but a text that can't be answered gives its error in its place.

        Args:
            texts: A list of texts.
            fields: See `generate`.
            on_long: See `generate`.
            batch_size: See `generate`.
            output: See `generate`.
            before_batch: Called before each run of the engine; an exception ends the call.
            **options: See `generate`.

        Raises:
            UsageError: Something that concerns all texts, such as an unknown option.
            UnsupportedError: The engine can't do what the options ask for.
        """
        call = self._call(options, on_long, batch_size, output, before_batch)
        return answer_each(self.encoder, self._runner, texts, fields, call, strict=False)

    def _call(
        self,
        options: Mapping[str, Any],
        on_long: OnLong | None,
        batch_size: int,
        output: OutputCheck | None,
        before_batch: Callable[[], None] | None = None,
    ) -> Call:
        return Call(
            options=self.options(options),
            guardrails=self.guardrails,
            on_long=self._on_long(on_long),
            batch_size=batch_size,
            output=self.guardrails.output if output is None else output,
            before_batch=before_batch,
        )

    def stream(
        self,
        text: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
        **options: Any,
    ) -> Stream[Generation]:
        """Answer one text piece by piece: iterate over strings, then read `.result`.

        Works with greedy search and sampling. Beam search, answers with an output check, and
        inputs answered in chunks have no text before they are complete.

        Args:
            text: The input.
            fields: See `generate`.
            on_long: "error" or "truncate"; None takes the guardrails' choice.
            **options: See `generate`.

        Raises:
            UsageError: Beam search, an output check in the guardrails, or a bad option.
            InputTooLongError: An input over the limit, unless `on_long` is "truncate".

        Example:
            >>> with model.stream("some text") as stream:
            ...     for piece in stream:
            ...         print(piece, end="", flush=True)
        """
        if self.guardrails.output is not None:
            raise UsageError("answers with an output check can't be streamed; use generate")
        chosen = self.options(options)
        if chosen.num_beams > 1 or chosen.num_return_sequences > 1:
            raise UsageError("stream gives one answer of one beam; use num_beams 1 (--num-beams 1)")
        self.engine.check_options(chosen)
        started = time.perf_counter()
        ids, truncated = self.encode([text], fields=fields, on_long=on_long)
        tokenize_ms = milliseconds_since(started)

        def produce(on_token: TokenCallback) -> Generation:
            return self._runner.generate(
                ids, truncated, chosen, tokenize_ms=tokenize_ms, on_token=on_token
            )[0]

        return Stream(
            produce,
            lambda row: self.tokenizer.decode([row])[0],
            eos=self.tokenizer.eos,
            stop_strings=chosen.stop_strings,
        )

    @overload
    def score(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        targets: str,
        *,
        fields: Fields | None = None,
        on_long: OnLong | None = None,
    ) -> np.ndarray: ...

    @overload
    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> list[np.ndarray]: ...

    def score(
        self,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Log-probability (nats) of every token of a target given its input, eos included.

        Args:
            inputs: A text, or a list of texts.
            targets: The target of each input.
            fields: See `generate`.
            on_long: "error" or "truncate"; None takes the guardrails' choice.

        Returns:
            A float32 array of the target's length in tokens, or a list of them.

        Raises:
            UsageError: Different numbers of inputs and targets, or see `encode`.
            InputTooLongError: An input over the limit, unless `on_long` is "truncate".
        """
        if isinstance(inputs, str) != isinstance(targets, str):
            raise UsageError("score needs two texts, or two lists of texts")
        if isinstance(inputs, str) and isinstance(targets, str):
            return self.score([inputs], [targets], fields=fields, on_long=on_long)[0]
        input_ids, _ = self.encode(inputs, fields=fields, on_long=on_long)
        return self.score_tokens(input_ids, self.tokenizer.encode(targets))
