"""Check of the characters that the tokenizer does not bring back, and of --vocabulary."""

from __future__ import annotations

from edge.train.data.coverage import measure_coverage
from edge.train.data.pairs import texts_of
from edge.train.model.tokenizer import learn_escaped_pieces
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
            new = context.config.from_scratch is not None
            if new:
                vocabulary = learn_escaped_pieces(vocabulary, texts_of(splits.train))
            context.tokenizer, context.extended = vocabulary.tokenizer, True
            pieces = len(vocabulary.tokenizer)
            before = model_config.vocab_size
            model_config.vocab_size = pieces if new else padded_size(pieces, before)
    finally:
        context.lengths = pair_lengths(context.train_pairs, context.tokenizer or tokenizer)
    yield (WARNING if vocabulary.lost and not vocabulary.added else OK), str(coverage)
