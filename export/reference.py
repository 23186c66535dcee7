"""The reference engine: transformers' model, which every artifact is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge.export.source import SourceModel
from edge.runtime.engines.base import Engine, Hypothesis, TokenCallback, TokenIds, pad_batch
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import UnsupportedError
from edge.runtime.inference.batching import batches_by_length
from edge.runtime.options import GenerationOptions
from edge.train.model.answers import generate_ids
from edge.train.model.generation_config import transformers_config

BATCH_TOKENS = 512
_ANSWER_BATCH_TOKENS = 1024  # each step of a search reads all weights


class TorchReference(Engine):
    """Runs `SourceModel.torch_model` in float32 through transformers' `generate` and `forward`.

    It shares no search code with the other engines, so that a fault in that code shows.
    """

    format = "torch"

    def __init__(
        self,
        source: SourceModel,
        *,
        pieces: int,
        threads: int | None = None,
        shortlist: Sequence[int] | None = None,
    ) -> None:
        """Wrap the model.

        Args:
            source: the model.
            pieces: the number of ids with a piece of text; larger ids are never generated.
            threads: ignored; torch's global setting applies.
            shortlist: if given, only these ids and those of the input are generated.
        """
        self._source = source
        self._pieces = pieces
        self._shortlist = shortlist

    @property
    def threads(self) -> int:
        """The number of threads that torch computes with."""
        import torch

        count: int = torch.get_num_threads()
        return count

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`.

        Raises:
            UnsupportedError: with `on_token`, as the reference does not stream.
        """
        if on_token is not None:
            raise UnsupportedError("the torch reference does not stream")
        rows = self._search(input_ids, options)
        copies = options.num_return_sequences
        sources = [row for row in input_ids for _ in range(copies)]
        eos = self._source.architecture.eos_token_id
        scored = self.score(sources, [row or [eos] for row, _ in rows])
        hypotheses = [
            Hypothesis(
                tuple(row[:-1] if reason == "eos" else row),
                float(values.sum()) / len(values) ** options.length_penalty,
                reason,
                end_token=row[-1] if reason == "eos" else None,
            )
            for (row, reason), values in zip(rows, scored, strict=True)
        ]
        return [hypotheses[i : i + copies] for i in range(0, len(hypotheses), copies)]

    def answers(self, input_ids: Sequence[TokenIds], options: GenerationOptions) -> list[list[int]]:
        """Token ids of the answers alone: the scores that `generate` gives cost another pass.

        Returns:
            For each row num_return_sequences answers, in their order, without the end token.
        """
        copies = options.num_return_sequences
        found: dict[int, list[int]] = {}
        lengths = [len(row) for row in input_ids]
        for batch in batches_by_length(lengths, max_tokens=_ANSWER_BATCH_TOKENS):
            places = [place * copies + copy for place in batch for copy in range(copies)]
            answers = self._search([input_ids[place] for place in batch], options)
            for place, (row, reason) in zip(places, answers, strict=True):
                found[place] = row[:-1] if reason == "eos" else row
        return [found[place] for place in range(len(found))]

    def _search(
        self, input_ids: Sequence[TokenIds], options: GenerationOptions
    ) -> list[tuple[list[int], str]]:
        """Tokens of each answer, the end token included, and the finish reason."""
        import torch
        from transformers import DynamicCache, EncoderDecoderCache

        shape = self._source.architecture
        ids, mask = pad_batch(input_ids, shape.pad_token_id)
        config = transformers_config(
            options,
            pad=shape.pad_token_id,
            end=shape.all_end_token_ids,
            start=shape.decoder_start_token_id,
            unused=range(self._pieces, shape.vocab_size),
        )
        allowed: Any = None
        if self._shortlist is not None:
            allowed_by_row = [sorted({*self._shortlist, *row}) for row in input_ids]
            allowed = lambda row, _: allowed_by_row[row]  # noqa: E731
        tokens = generate_ids(
            self._source.torch_model,
            {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)},
            config,
            seed=options.seed,
            prefix_allowed_tokens_fn=allowed,
            # The cache that transformers 5 creates has as many layers as the encoder, and fails if
            # the decoder has more.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
        )
        return [self._trim_at_end(row[1:]) for row in tokens.tolist()]

    def _trim_at_end(self, tokens: list[int]) -> tuple[list[int], str]:
        """The tokens up to and including the end token, and the finish reason."""
        ends = self._source.architecture.all_end_token_ids
        for place, token in enumerate(tokens):
            if token in ends:
                return tokens[: place + 1], "eos"
        return tokens, "length"

    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """See `Engine.score`."""
        found: dict[int, np.ndarray] = {}
        for place, rows in self._log_probs(input_ids, target_ids):
            target = target_ids[place]
            found[place] = rows[np.arange(len(target)), target]
        return [found[place] for place in range(len(found))]

    def log_probs(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """Log-probabilities of every token at every position of targets.

        Returns:
            float32 [tokens, vocab_size] for each target.
        """
        found = dict(self._log_probs(input_ids, target_ids))
        return [found[place] for place in range(len(found))]

    def _log_probs(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Each row's number and what `log_probs` returns for it; those of one batch at a time."""
        import torch

        shape = self._source.architecture
        longest = [max(map(len, pair)) for pair in zip(input_ids, target_ids, strict=True)]
        for batch in batches_by_length(longest, max_tokens=BATCH_TOKENS):
            ids, mask = pad_batch([input_ids[place] for place in batch], shape.pad_token_id)
            targets, _ = pad_batch([target_ids[place] for place in batch], shape.pad_token_id)
            decoder_ids = shift_right(targets, shape.decoder_start_token_id)
            with torch.inference_mode():
                logits = self._source.torch_model(
                    input_ids=torch.from_numpy(ids),
                    attention_mask=torch.from_numpy(mask),
                    decoder_input_ids=torch.from_numpy(decoder_ids),
                ).logits
                rows = torch.log_softmax(logits.float(), dim=-1).numpy()
            for place, row in zip(batch, rows, strict=True):
                yield place, row[: len(target_ids[place])]

    def close(self) -> None:
        """Do nothing: the model belongs to its source."""


def shift_right(targets: np.ndarray, start: int) -> np.ndarray:
    """What a decoder reads to predict `targets` [rows, tokens]: the same, after the start token."""
    return np.concatenate([np.full((len(targets), 1), start), targets[:, :-1]], axis=1)
