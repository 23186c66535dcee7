"""A loaded artifact at the level of token ids: defaults, limits, engine and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from edge.runtime.artifact import TOKENIZER_NAME, Artifact
from edge.runtime.constraints.compiler import ConstraintCompiler
from edge.runtime.engines.base import Engine, Vocabulary
from edge.runtime.errors import ArtifactError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.guardrails import Guardrails, OnLong, check_on_long, profile_options
from edge.runtime.inference.adaptive_drafts import AdaptiveDrafts, DraftSettings
from edge.runtime.inference.encoder import Fields, InputEncoder
from edge.runtime.inference.runner import BATCH_SIZE, EngineRunner
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer


class TokenModel:
    """The base of `Model`: everything that works on token ids.

    Attributes:
        artifact: The folder and its manifest.
        engine: The engine; call it through the model's methods, which lock it where needed.
        encoder: Prompt, tokenization and input limit.
        tokenizer: The artifact's tokenizer.
        guardrails: The guardrails given to `load`.
        limits: Limits of the artifact, lowered by the guardrails.
        defaults: Generation options of calls that give none.
    """

    def __init__(
        self, artifact: Artifact, engine: Engine, guardrails: Guardrails | None = None
    ) -> None:
        manifest = artifact.manifest
        self.artifact = artifact
        self.engine = engine
        self.guardrails = guardrails or Guardrails()
        self.limits = self.guardrails.limits(manifest.limits)
        self._draft_settings = DraftSettings.of(artifact)
        self.defaults = self._default_options()
        self.tokenizer = Tokenizer(
            artifact.path(TOKENIZER_NAME), eos=manifest.architecture.eos_token_id
        )
        if self.tokenizer.pieces != manifest.tokenizer.pieces:
            raise ArtifactError(
                f"{artifact.path(TOKENIZER_NAME)} has {self.tokenizer.pieces:,} pieces, the"
                f" manifest says {manifest.tokenizer.pieces:,}; copy or export it again"
            )
        self.encoder = InputEncoder(
            self.tokenizer,
            Prompt(manifest.prompt_template),
            self.limits,
            vocab_size=manifest.architecture.vocab_size,
            enforce_prefix=self.guardrails.enforce_prefix,
        )
        self._runner = EngineRunner(
            engine,
            self.tokenizer,
            ConstraintCompiler(self.tokenizer, Vocabulary.of(artifact)),
            name=str(artifact.folder),
            vocab_size=manifest.architecture.vocab_size,
            drafts=AdaptiveDrafts(self._draft_settings.break_even),
        )
        engine.prepare(self.defaults)

    def _default_options(self) -> GenerationOptions:
        """The artifact's options, with the guardrails' profile and limit."""
        profile = profile_options(self.guardrails.profile, beams=self.engine.supports_beams)
        tuned = {"prompt_lookup_num_tokens": self._draft_settings.longest}
        stored = self.artifact.manifest.generation
        chosen = GenerationOptions().override({**tuned, **stored, **profile})
        if chosen.max_new_tokens > (limit := self.limits.max_new_tokens):
            chosen = chosen.override({"max_new_tokens": limit})
        return chosen

    def options(self, options: Mapping[str, Any]) -> GenerationOptions:
        """The model's default options with some replaced.

        Drafts that an artifact has by default are left out while they do not pay.

        Raises:
            UsageError: Unknown option, bad value, or more new tokens than the limit.
        """
        chosen = self.defaults.override(options)
        if options.get("prompt_lookup_num_tokens") is None and not self._runner.drafts.wanted:
            chosen = chosen.override({"prompt_lookup_num_tokens": 0})
        limit = self.limits.max_new_tokens
        if chosen.max_new_tokens > limit:
            raise UsageError(
                f"max_new_tokens is {chosen.max_new_tokens}, this artifact's limit is {limit}"
            )
        return chosen

    @property
    def drafts_from_input(self) -> bool:
        """Whether `prompt_lookup_num_tokens` has an effect; else it is ignored."""
        return self.engine.drafts_with(self.artifact.manifest.quantization)

    @property
    def prompt(self) -> Prompt:
        """The template around each text; it may be replaced."""
        return self.encoder.prompt

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self.encoder.prompt = prompt

    def encode(
        self,
        texts: Sequence[str],
        *,
        fields: Fields | Sequence[Fields] | None = None,
        on_long: OnLong | None = None,
    ) -> tuple[list[list[int]], list[bool]]:
        """Token ids that the engine reads for each text, and whether each text was truncated.

        The prompt is applied, eos comes last, and rows are not padded.

        Args:
            texts: A list of texts.
            fields: Values of the prompt's other fields, for all texts or for each.
            on_long: "error" or "truncate"; None takes the guardrails' choice.

        Raises:
            UsageError: A field of the prompt is missing, or `on_long` is unknown.
            InputTooLongError: An input over the limit, unless `on_long` is "truncate".
        """
        return self.encoder.encode(texts, fields, self._on_long(on_long))

    def _on_long(self, on_long: OnLong | None) -> OnLong:
        chosen = self.guardrails.on_long if on_long is None else on_long
        check_on_long(chosen)
        return chosen

    def generate_tokens(
        self,
        input_ids: Sequence[int] | Sequence[Sequence[int]],
        *,
        batch_size: int = BATCH_SIZE,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Like `Model.generate` for token ids, used as given: neither prompt nor eos is added.

        Args:
            input_ids: One row of ids, or a list of unpadded rows.
            batch_size: Most rows in one run of the engine, which has at most 8,192 tokens.
            **options: Fields of `GenerationOptions` that replace the model's defaults.

        Returns:
            A `Generation` for one row, or a list of them in the same order.

        Raises:
            UsageError: An empty row, an id outside the vocabulary, or a bad option.
            InputTooLongError: A row over the limit.
            UnsupportedError: The engine can't do what the options ask for.
        """
        is_single = len(input_ids) > 0 and not isinstance(input_ids[0], Sequence | np.ndarray)
        rows: Any = [input_ids] if is_single else input_ids
        chosen = self.options(options)
        checked = [self.encoder.check_token_ids(row) for row in rows]
        for ids in checked:
            self.encoder.check_length(len(ids))
        answers = self._runner.generate(
            checked, [False] * len(checked), chosen, batch_size=batch_size
        )
        return answers[0] if is_single else answers

    def score_tokens(
        self,
        input_ids: Sequence[Sequence[int]],
        target_ids: Sequence[Sequence[int]],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> list[np.ndarray]:
        """Like `Model.score` for token ids.

        Args:
            input_ids: Unpadded rows of ids, eos included.
            target_ids: Unpadded rows without the start token.
            batch_size: Number of rows in one run of the engine.

        Returns:
            For each row a float32 array of len(target) log-probabilities in nats.

        Raises:
            UsageError: Different numbers of rows, an empty row, or an id outside the vocabulary.
        """
        if len(input_ids) != len(target_ids):
            raise UsageError(f"{len(input_ids)} inputs but {len(target_ids)} targets")
        check = self.encoder.check_token_ids
        return self._runner.score(
            [check(row) for row in input_ids],
            [check(row) for row in target_ids],
            batch_size=batch_size,
        )

    @property
    def closed(self) -> bool:
        """Whether the model was closed."""
        return self._runner.closed

    def close(self) -> None:
        """Wait for running calls, then free the engine. Closing twice is harmless."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
