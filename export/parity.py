"""The parity check: an artifact's answers and log-probabilities compared with its source model's.

For a fixed set of inputs, the check compares greedy answers, and the log-probability of each token
of the source's greedy answers. Log-probabilities matter: a wrong scaling of the logits does not
change greedy answers, but beams, sampling and scores.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.export.tolerance import Parity
from edge.export.weights import require_finite
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.manifest import Limits
from edge.runtime.errors import ModelError
from edge.runtime.model import Model
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer, cut_ids
from edge.train.model.architecture import expected_shapes
from edge.train.model.folder import open_tokenizer

# From one word to a paragraph, so that batches are padded; with accents, digits, other scripts and
# characters outside of T5's vocabulary.
PARITY_TEXTS = (
    "Yes",
    "what is the uh the capital of France no sorry of Germany",
    "Who wrote, I mean, who painted the Mona Lisa?",
    "When did the war end in 1918 or wait when did it start?",
    "summarize: The quick brown fox jumps over the lazy dog near the river bank.",
    "How many people lived in São Paulo in 2010?",
    "list the files that are larger than 100 MB, sorted by size",
    "Wie heißt die Hauptstadt von Österreich?",
    "What does {x} < 10 ~ y mean?",
    "日本の首都はどこですか",
    "Is it 3.14 or 2.718, approximately?",
    "Which of the two rivers, the Rhine um the Danube, is the longer one and through how many"
    " countries does it flow before it reaches the sea?",
    "translate English to German: That is good.",
    "In what year, no wait, in what country was the treaty that ended the Thirty Years' War signed,"
    " who signed it first, and which of the negotiators, if any, refused to put his name under the"
    " final text because of the terms on the western border?",
)
_NEW_TOKENS = 24
# Otherwise a model whose answers are eos alone would pass with next to nothing compared.
_MIN_NEW_TOKENS = 4
_DRAFT_TOKENS, _DRAFTED_TOKENS = 6, 16  # of a draft, and of the answers compared


class ParityCheck:
    """The source's answers to the fixed inputs, computed once for all artifacts of the source.

    Attributes:
        tokenizer: the tokenizer of the artifacts.
        input_ids: the inputs, as ids.
    """

    def __init__(
        self,
        source: SourceModel,
        prompt: Prompt,
        limits: Limits,
        tokenizer_folder: Path,
        shortlist: Sequence[int] | None = None,
    ) -> None:
        """Tokenize the inputs.

        Args:
            source: the model that artifacts are compared with.
            prompt: the prompt around each input.
            limits: the artifacts' limits; inputs and answers stay within them.
            tokenizer_folder: holds the tokenizer.json of the artifacts.
            shortlist: the ids of a shortlist; the source then chooses among these and the ids of
                each input.

        Raises:
            ModelError: that tokenizer does not match the model, or transformers' tokenizer.
        """
        self.tokenizer = Tokenizer(
            tokenizer_folder / TOKENIZER_NAME, eos=source.architecture.eos_token_id
        )
        self._check_pieces(source)
        _check_finite(source)
        fields = dict.fromkeys(prompt.fields, "parity")
        texts = [prompt.apply(text, fields) for text in PARITY_TEXTS]
        _check_tokenizer(source, self.tokenizer, texts)
        eos = source.architecture.eos_token_id
        # The first input is the shortest possible: eos alone.
        longest = limits.max_input_tokens
        rows = self.tokenizer.encode(texts)
        self.input_ids = [[eos], *(cut_ids(row, longest, eos) for row in rows)]
        new_tokens = min(_NEW_TOKENS, limits.max_new_tokens)
        self._options = GenerationOptions(
            max_new_tokens=new_tokens, min_new_tokens=min(_MIN_NEW_TOKENS, new_tokens)
        )
        self._folder = source.folder
        self._has_shortlist = shortlist is not None
        self._reference = TorchReference(source, pieces=self.tokenizer.pieces, shortlist=shortlist)

    def _check_pieces(self, source: SourceModel) -> None:
        if self.tokenizer.pieces > source.architecture.vocab_size:
            raise ModelError(
                f"{source.folder}: the tokenizer has {self.tokenizer.pieces} tokens, but the model"
                f" only {source.architecture.vocab_size}; they do not belong together"
            )

    @functools.cached_property
    def _answers(self) -> list[list[int]]:
        return self._reference.answers(self.input_ids, self._options)

    @functools.cached_property
    def _targets(self) -> list[list[int]]:
        return [self._target(answer) for answer in self._answers]

    @functools.cached_property
    def _log_probs(self) -> list[np.ndarray]:
        """Of all tokens at every position of the answers: float32 [tokens, vocab_size] each.

        Complete, so that the source's model is not needed again where an artifact differs.
        """
        found = self._reference.log_probs(self.input_ids, self._targets)
        if any(np.isnan(rows).any() for rows in found):
            raise ModelError(
                f"{self._folder}: the model itself, in float32, computes log-probabilities that are"
                " not numbers: its weights are too large. No artifact can be compared with it"
            )
        return found

    def prepare(self) -> None:
        """Compute the source's answers and log-probabilities now, not at the first artifact."""
        self._log_probs  # noqa: B018 - cached

    def _target(self, answer: list[int]) -> list[int]:
        return [*answer, self.tokenizer.eos]

    def measure(self, model: Model) -> Parity:
        """Compare a loaded artifact with the source, all inputs in one padded batch."""
        options = dataclasses.asdict(self._options)
        found = model.generate_tokens(self.input_ids, batch_size=len(self.input_ids), **options)
        assert isinstance(found, list)
        answers = [list(one.token_ids) for one in found]
        differing = [row for row, ids in enumerate(answers) if ids != self._answers[row]]
        scores = model.score_tokens(self.input_ids, self._targets, batch_size=len(self._targets))
        expected = [
            rows[np.arange(len(target)), target]
            for rows, target in zip(self._log_probs, self._targets, strict=True)
        ]
        errors = np.abs(np.concatenate(scores) - np.concatenate(expected))
        lookup_identical, lookup_gap = self._with_lookup(model, answers)
        return Parity(
            inputs=len(self.input_ids),
            tokens=int(errors.size),
            greedy_identical=len(answers) - len(differing),
            largest_gap=max((self._gap(row, answers[row]) for row in differing), default=0.0),
            lookup_identical=lookup_identical,
            lookup_gap=lookup_gap,
            max_error=float(errors.max()) if np.isfinite(errors).all() else float("inf"),
            mean_error=float(errors.mean()) if np.isfinite(errors).all() else float("inf"),
        )

    def _with_lookup(
        self, model: Model, answers: Sequence[list[int]]
    ) -> tuple[int | None, float | None]:
        """`Parity.lookup_identical` and `lookup_gap`: the first tokens with and without drafts."""
        if not model.drafts_from_input:
            return None, None
        length = min(_DRAFTED_TOKENS, self._options.max_new_tokens)
        options = self._options.override(
            {"max_new_tokens": length, "prompt_lookup_num_tokens": _DRAFT_TOKENS}
        )

        def one_by_one(options: GenerationOptions) -> list[list[int]]:
            values = dataclasses.asdict(options)
            found = model.generate_tokens(self.input_ids, batch_size=1, **values)
            assert isinstance(found, list)
            return [list(answer.token_ids) for answer in found]

        if self._has_shortlist:  # to which each row of a batch adds its own tokens
            answers = one_by_one(self._options)
        gaps = []
        for row, (plain, answer) in enumerate(zip(answers, one_by_one(options), strict=True)):
            if answer != plain[:length]:
                pair = (self._target(ids) for ids in (plain[:length], answer))
                position, one, other = first_difference(*pair)
                scores = model.score_tokens([self.input_ids[row]] * 2, [one, other])
                gaps.append(abs(float(scores[0][position] - scores[1][position])))
        return len(answers) - len(gaps), max(gaps, default=0.0)

    def _gap(self, row: int, answer: list[int]) -> float:
        """The difference of the source's log-probabilities where the answers first differ.

        It is large, too, if the artifact chose a token that the options forbid.
        """
        expected, found = self._targets[row], self._target(answer)
        position, expected, found = first_difference(expected, found)
        log_probs = self._log_probs[row][position]
        return abs(float(log_probs[expected[-1]] - log_probs[found[-1]]))


def first_difference(one: list[int], other: list[int]) -> tuple[int, list[int], list[int]]:
    """The first position where two answers differ, and both answers up to and including it."""
    pairs = zip(one, other, strict=False)
    position = next(i for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return position, one[: position + 1], other[: position + 1]


def _check_finite(source: SourceModel) -> None:
    """Reject weights with NaN or infinite values in all formats, in float32 too."""
    for name in expected_shapes(source.architecture):
        require_finite(source.tensor(name), name, source.folder)


def _check_tokenizer(source: SourceModel, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Compare the runtime's tokenization with transformers', which the model was trained with."""
    reference: Any = open_tokenizer(source.tokenizer_source)
    expected = reference(list(texts), verbose=False)["input_ids"]
    for text, ids, found in zip(texts, expected, tokenizer.encode(texts), strict=True):
        if list(ids) != found:
            raise ModelError(
                f"{source.folder}: tokenizer.json and transformers disagree on {text!r}:"
                f" {found[:8]}… against {list(ids)[:8]}…"
            )
