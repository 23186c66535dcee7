"""Check of the characters that the tokenizer does not bring back, and of --vocabulary."""

from __future__ import annotations

from edge.train.data.pairs import texts_of
from edge.train.preflight.checks import (
    OK,
    WARNING,
    Findings,
    PreflightContext,
    pair_lengths,
    sample,
)
from edge.train.vocabulary import resolve
from edge.train.vocabulary.embeddings import padded_size
from edge.train.vocabulary.lost import restored


def lost_characters(context: PreflightContext) -> Findings:
    """All characters of the rows survive encoding and decoding, after --vocabulary.

    Extends the tokenizer for the checks that follow, as training does.
    """
    tokenizer, splits, model_config = context.tokenizer, context.splits, context.model_config
    if tokenizer is None or splits is None or model_config is None:
        return
    context.train_pairs = sample(splits.train)
    try:
        texts = texts_of([*splits.train, *splits.dev])
        vocabulary = resolve(tokenizer, texts, context.config.vocabulary)
    finally:
        context.lengths = pair_lengths(context.train_pairs, context.tokenizer)
    message = vocabulary.message
    if message is None:
        yield OK, "the tokenizer brings back all characters of the rows"
        return
    rows = texts_of(context.train_pairs)
    before = _ratio(restored(rows, tokenizer.backend_tokenizer))
    if vocabulary.extension is None:
        yield WARNING, f"{message}; {before:.1%} of the texts come back"
        return
    context.tokenizer, context.extended = vocabulary.tokenizer, True
    model_config.vocab_size = padded_size(len(vocabulary.tokenizer), model_config.vocab_size)
    context.lengths = pair_lengths(context.train_pairs, context.tokenizer)
    after = _ratio(restored(rows, context.tokenizer.backend_tokenizer))
    yield OK, f"{message}; {after:.1%} of the texts come back, {before:.1%} without"


def _ratio(found: list[bool]) -> float:
    return sum(found) / len(found)
