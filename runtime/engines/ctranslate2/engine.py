"""The CTranslate2 engine.

CTranslate2 takes tokens by name, so the model is loaded with names made from the ids. Source and
target names differ: CTranslate2 treats a source row of only eos or start tokens as empty and
returns nothing, while T5 has an answer even to eos alone. CTranslate2 defaults that would silently
change answers (beam size 2, inputs truncated at 1024 tokens, at least one token) are overridden.

Differences from transformers: beam search applies penalties and bans to the logits and normalizes
afterwards, while transformers changes log-probabilities; and a row ends after a fixed number of
finished hypotheses. Beams with such options can rank differently. Scores are the model's own, as
with every engine: if an option changes the distribution, the answer is scored again without it.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import (
    Engine,
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_setting,
    choose_threads,
)
from edge.runtime.engines.boundary import engine_errors
from edge.runtime.engines.ctranslate2.files import (
    MODEL_NAME,
    model_files,
    source_names,
    target_name,
)
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import EdgeError
from edge.runtime.options import GenerationOptions

# The exporter writes one of these into the manifest.
_COMPUTE_TYPES = ("default", "float32", "int8_float32")
_LIBRARY = f"CTranslate2 {ctranslate2.__version__}"
# Without early_stopping, a row continues until this many times num_beams hypotheses have ended
# (Kasai et al. 2022, arXiv:2204.05424); transformers continues while a running beam may still win.
# Of 100 questions with 3 beams, 1 gave the answer of transformers to 77, 2 to 94 and 3 to 99, at
# the same speed.
_PATIENCE = 3.0
_SEED_LOCK = threading.Lock()


class CTranslate2Engine(Engine):
    """A converted model in CTranslate2's `Translator`, on the CPU."""

    format = "ctranslate2"
    thread_safe = True  # a Translator queues the calls of several threads

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Load the model.

        Raises:
            ArtifactError: A file is missing from the manifest, damaged, or can't be loaded.
        """
        self.vocabulary = Vocabulary.of(artifact)
        self._artifact = artifact
        self._threads = choose_threads(artifact, threads)
        self._path = artifact.path(MODEL_NAME)
        self._translator: Any = self._open()
        unused = range(self.vocabulary.pieces, self.vocabulary.size)
        self._suppressed = [[target_name(token)] for token in unused] or None

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def _open(self) -> Any:
        """A new Translator; its worker thread has a separate random generator."""
        files = model_files(self._artifact, self.vocabulary, self._path)
        compute_type = choose_setting(self._artifact, "compute_type", _COMPUTE_TYPES)
        with engine_errors(self._path, _LIBRARY, loading=True):
            return ctranslate2.Translator(
                str(self._artifact.folder),
                device="cpu",
                compute_type=compute_type,
                inter_threads=1,
                intra_threads=self._threads,
                files=files,
            )

    # -- generating ------------------------------------------------------------------------------

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        self.check_options(options)
        tracker = None if on_token is None else _Callback(on_token, options)
        arguments = self._arguments(options)
        source = source_names(input_ids)
        suppressed: dict[str, Any] = {"suppress_sequences": self._suppressed}
        if tracker is not None:
            suppressed["callback"] = tracker
        with engine_errors(self._path, _LIBRARY, also=None if tracker is None else tracker.reraise):
            if options.do_sample and options.seed is not None:
                results = self._translate_seeded(source, arguments | suppressed, options.seed)
            elif options.do_sample or on_token is not None:
                results = self._translator.translate_batch(source, **arguments, **suppressed)
            else:
                results, suppressed = self._search(source, arguments, suppressed)
        stopped = set() if tracker is None else tracker.stopped
        copies = options.num_return_sequences
        answers = [_answers(result) for result in results]
        if _changes_scores(options) or suppressed.get("suppress_sequences"):
            sums = self._sums(input_ids, answers)
        else:
            sums = [list(result.scores) for result in results]
        groups = []
        for row, (hypotheses, totals) in enumerate(zip(answers, sums, strict=True)):
            group = [
                self._hypothesis(tokens, total, row * copies + index in stopped, options)
                for index, (tokens, total) in enumerate(zip(hypotheses, totals, strict=True))
            ]
            groups.append(sorted(group, key=lambda h: -h.score))
        return groups

    def _search(
        self, source: list[list[str]], arguments: dict[str, Any], suppressed: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Search without suppressing ids, and again with suppression if an id without text came up.

        A trained model hardly ever emits one. Suppression spreads their probability over the other
        ids, which changes scores and the ranking of beams. Returns the results and what was
        suppressed.
        """
        results = self._translator.translate_batch(source, **arguments)
        tokens = (token for result in results for row in _answers(result) for token in row)
        if max(tokens, default=0) < self.vocabulary.pieces:
            return results, {}
        return self._translator.translate_batch(source, **arguments, **suppressed), suppressed

    def _arguments(self, options: GenerationOptions) -> dict[str, Any]:
        """The options under CTranslate2's names; lengths include eos, as in transformers."""
        arguments: dict[str, Any] = {
            "max_input_length": 0,
            "max_decoding_length": options.max_new_tokens,
            "min_decoding_length": options.min_new_tokens,
            "beam_size": options.num_beams,
            "num_hypotheses": options.num_return_sequences,
            # Greedy search and sampling have no ranking: 0 gives the sum of log-probabilities.
            "length_penalty": options.length_penalty if options.num_beams > 1 else 0,
            "patience": 1.0 if options.early_stopping or options.num_beams == 1 else _PATIENCE,
            "repetition_penalty": options.repetition_penalty,
            "no_repeat_ngram_size": options.no_repeat_ngram_size,
            "end_token": [target_name(token) for token in self.vocabulary.ends],
            "return_end_token": True,
            "return_scores": True,
        }
        if options.do_sample:
            arguments["sampling_topk"] = min(options.top_k, self.vocabulary.size)
            arguments["sampling_topp"] = options.top_p
            arguments["sampling_temperature"] = options.temperature
        return arguments

    def _translate_seeded(
        self, source: list[list[str]], arguments: dict[str, Any], seed: int
    ) -> list[Any]:
        """Sample in a new Translator: a worker reads the seed only once, at its first sample."""
        with _SEED_LOCK:
            ctranslate2.set_random_seed(seed)
            try:
                translator = self._open()
                return list(translator.translate_batch(source, **arguments))
            finally:
                ctranslate2.set_random_seed(secrets.randbits(32))

    def _hypothesis(
        self, tokens: list[int], total: float, stopped: bool, options: GenerationOptions
    ) -> Hypothesis:
        if math.isnan(total):
            raise EdgeError(f"{self._path}: the model computed values that are not numbers (NaN)")
        score = total / max(1, len(tokens)) ** options.length_penalty
        if tokens and tokens[-1] in self.vocabulary.ends:
            return Hypothesis(tuple(tokens[:-1]), score, "eos", end_token=tokens[-1])
        return Hypothesis(tuple(tokens), score, "stop" if stopped else "length")

    # -- scoring ---------------------------------------------------------------------------------

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """See `Engine.score`."""
        with engine_errors(self._path, _LIBRARY):
            results = self._translator.score_batch(
                source_names(input_ids),
                [[target_name(token) for token in row] for row in target_ids],
                max_input_length=0,
            )
        # CTranslate2 also scores an eos after the target.
        return [
            np.asarray(result.log_probs[: len(target)], dtype=np.float32)
            for result, target in zip(results, target_ids, strict=True)
        ]

    def _sums(
        self, input_ids: Sequence[TokenIds], answers: list[list[list[int]]]
    ) -> list[list[float]]:
        """Sum of log-probabilities of every answer under the unmodified model."""
        sources = [row for row, group in zip(input_ids, answers, strict=True) for _ in group]
        targets = [tokens for group in answers for tokens in group]
        sums = iter(float(values.sum()) for values in self.score(sources, targets))
        return [[next(sums) for _ in group] for group in answers]

    def close(self) -> None:
        """See `Engine.close`."""
        self._translator = None


def _answers(result: Any) -> list[list[int]]:
    """The token ids of each hypothesis, eos included."""
    return [[int(name) for name in hypothesis] for hypothesis in result.hypotheses]


def _changes_scores(options: GenerationOptions) -> bool:
    """Whether CTranslate2's scores differ from the model's own sums of log-probabilities."""
    return (
        options.num_beams > 1
        or options.do_sample
        or options.min_new_tokens > 0
        or options.repetition_penalty != 1.0
        or options.no_repeat_ngram_size > 0
    )


class _Callback:
    """CTranslate2's callback around `on_token`.

    Attributes:
        stopped: The rows that `on_token` ended.
    """

    def __init__(self, on_token: TokenCallback, options: GenerationOptions) -> None:
        self._on_token = on_token
        self._copies = options.num_return_sequences
        self._error: Exception | None = None
        self.stopped: set[int] = set()

    def __call__(self, result: Any) -> bool:
        row = result.batch_id * self._copies + result.hypothesis_id
        try:
            ended = self._on_token(row, result.token_id)
        except Exception as error:
            self._error = error
            raise
        if ended:
            self.stopped.add(row)
        return ended

    def reraise(self) -> None:
        """Raise the exception of `on_token`, if it raised one."""
        if self._error is not None:
            raise self._error
