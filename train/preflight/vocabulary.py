"""Check of the characters that the tokenizer does not bring back, and of --vocabulary."""

from __future__ import annotations

from edge.train.data.coverage import measure_coverage
from edge.train.preflight.checks import (
    OK,
    WARNING,
    Findings,
    PreflightContext,
    pair_lengths,
    sample,
)
from edge.train.vocabulary.embeddings import padded_size


def lost_characters(context: PreflightContext) -> Findings:
    """All characters of the rows survive encoding and decoding, after --vocabulary.

    Extends the tokenizer for the checks that follow, as training does.
    """
    tokenizer, splits, model_config = context.tokenizer, context.splits, context.model_config
    if tokenizer is None or splits is None or model_config is None:
        return
    context.train_pairs = sample(splits.train)
    try:
        coverage, vocabulary = measure_coverage(
            [*splits.train, *splits.dev],
            tokenizer,
            context.config.vocabulary,
            sample=context.train_pairs,
        )
        if vocabulary.extension is not None:
            context.tokenizer, context.extended = vocabulary.tokenizer, True
            pieces = len(vocabulary.tokenizer)
            model_config.vocab_size = padded_size(pieces, model_config.vocab_size)
    finally:
        context.lengths = pair_lengths(context.train_pairs, context.tokenizer or tokenizer)
    yield (WARNING if vocabulary.lost and not vocabulary.added else OK), str(coverage)
