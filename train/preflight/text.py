"""Checks of the tokenizer and the texts: special tokens, round trip, lengths, parity."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.errors import ModelError
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer
from edge.train.model.generation import SavedGeneration, read_generation
from edge.train.model.local_folder import local_folder
from edge.train.model.training_record import read_training_record
from edge.train.preflight.checks import (
    FAILED,
    OK,
    WARNING,
    Findings,
    PreflightContext,
    pair_lengths,
    sample,
    status_by_ratio,
)

_PARITY_ROWS = 1000
_SHOWN_CHARACTERS = 80  # of an example


def special_tokens(context: PreflightContext) -> Findings:
    """<pad>, </s> and <unk> exist and match the model's configuration; </s> ends every text."""
    tokenizer, model_config = context.tokenizer, context.model_config
    if tokenizer is None or model_config is None:
        return
    problems = [
        f"it has no {name} token"
        for name in ("pad", "eos", "unk")
        if getattr(tokenizer, f"{name}_token_id") is None
    ]
    for name in ("pad", "eos"):
        found, expected = (
            getattr(holder, f"{name}_token_id", None) for holder in (tokenizer, model_config)
        )
        several = expected if isinstance(expected, list) else [expected]
        if None not in (found, expected) and found not in several:
            problems.append(f"its {name} token is {found}, but config.json says {expected}")
    pieces, rows = len(tokenizer), model_config.vocab_size
    if pieces > rows:
        problems.append(f"it has {pieces} pieces, but the embedding only {rows} rows")
    start = getattr(model_config, "decoder_start_token_id", None)
    if not isinstance(start, int) or not 0 <= start < rows:
        problems.append(f"decoder_start_token_id in config.json is {start}")
    if tokenizer("a", verbose=False)["input_ids"][-1:] != [tokenizer.eos_token_id]:
        problems.append("it does not append </s>")
    if problems:
        yield FAILED, f"the tokenizer does not fit the model: {'; '.join(problems)}"
        return
    yield OK, f"{pieces:,} pieces, pad {tokenizer.pad_token_id}, </s> {tokenizer.eos_token_id}"


def round_trip(context: PreflightContext) -> Findings:
    """Targets are unchanged by encoding and decoding."""
    tokenizer = context.tokenizer
    if tokenizer is None or not context.train_pairs:
        return
    targets = [pair.target for pair in context.train_pairs]
    ids = tokenizer(targets, verbose=False)["input_ids"]
    unknown = [n for n, row in enumerate(ids) if tokenizer.unk_token_id in row]
    back = tokenizer.batch_decode(ids, skip_special_tokens=True)
    others = {*range(len(targets))}.difference(unknown)
    changed = [n for n in sorted(others) if back[n] != targets[n]]
    for rows, what in (
        (unknown, "contain characters that are not in the vocabulary and cannot be generated"),
        (changed, "are changed by encoding and decoding"),
    ):
        if rows:
            status = status_by_ratio(len(rows), len(targets))
            yield (
                WARNING if context.config.vocabulary == "keep" else status,
                f"{len(rows):,} of {len(targets):,} targets {what}, such as"
                f" {targets[rows[0]][:_SHOWN_CHARACTERS]!r}",
            )
    if not unknown and not changed:
        yield OK, f"{len(targets):,} targets are unchanged by encoding and decoding"


def lengths_in_range(context: PreflightContext) -> Findings:
    """Few rows are longer than the maximum lengths."""
    if not context.lengths:
        return
    config, count = context.config, len(context.lengths)
    limits = (config.max_source_length or 0, config.max_target_length)
    options = ("--max-source-length", "--max-target-length")
    fine = True
    for side, name in enumerate(("inputs", "targets")):
        longest = max(pair[side] for pair in context.lengths)
        over = sum(pair[side] > limits[side] for pair in context.lengths)
        if over:
            fine = False
            effect = "are cut"
            if config.long == "drop":
                effect = "are dropped"
            elif config.long == "chunk" and name == "inputs":
                effect = "are split into several rows"
            yield (
                status_by_ratio(over, count),
                f"{over:,} of {count:,} {name} are longer than {limits[side]} tokens (the longest"
                f" has {longest}) and {effect} ({options[side]}, --long)",
            )
    if fine:
        source, target = (max(pair[side] for pair in context.lengths) for side in (0, 1))
        yield (
            OK,
            f"inputs have at most {source} tokens of {limits[0]}, targets at most {target} of"
            f" {limits[1]}",
        )


def output_cap(context: PreflightContext) -> Findings:
    """Generation may produce answers as long as the dev targets."""
    if context.tokenizer is None or context.splits is None:
        return
    saved = SavedGeneration(Path())
    if context.config.model is not None:
        try:
            saved = read_generation(_folder(context))
        except ModelError as error:
            yield FAILED, str(error)
            return
    for warning in saved.warnings:
        yield WARNING, warning
    cap = saved.resolve(context.config.max_target_length).max_new_tokens
    dev = sample(context.splits.dev)
    over = sum(target > cap for _, target in pair_lengths(dev, context.tokenizer))
    if over:
        yield (
            status_by_ratio(over, len(dev)),
            f"answers end after {cap} tokens, but {over:,} of {len(dev):,} dev targets are longer"
            " (raise --max-target-length, or max_new_tokens in the model's generation_config.json)",
        )
    else:
        yield OK, f"answers may have {cap} tokens; no dev target is longer"


def evaluation_parity(context: PreflightContext) -> Findings:
    """Dev rows give the same token ids in training and in the runtime.

    Also compares tokenizer and prompt with those that a folder's model was trained with before.
    """
    tokenizer, splits = context.tokenizer, context.splits
    if tokenizer is None or splits is None:
        return
    file = context.work_dir / f"runtime-{TOKENIZER_NAME}"
    tokenizer.backend_tokenizer.save(str(file))
    prompt = Prompt.parse(context.config.prefix)
    texts = [pair.source for pair in splits.dev[:_PARITY_ROWS]]
    runtime_ids = Tokenizer(file, eos=tokenizer.eos_token_id).encode(texts)
    training_ids = tokenizer(texts, verbose=False)["input_ids"]
    different = [
        text for text, a, b in zip(texts, runtime_ids, training_ids, strict=True) if a != b
    ]
    if different:
        yield (
            FAILED,
            f"{len(different):,} of {len(texts):,} dev inputs give other tokens in the runtime than"
            f" in training, such as {different[0][:_SHOWN_CHARACTERS]!r}: tokenizer.json differs"
            " from the tokenizer",
        )
        return
    path = TextFingerprint.of(file, prompt.template)
    model = context.config.model
    recorded = read_training_record(_folder(context)).get("text_path") if model else None
    if isinstance(recorded, dict) and not context.extended:
        for difference in path.differences(recorded):
            yield WARNING, f"{model} was trained with other settings: {difference}"
    yield (
        OK,
        f"{len(texts):,} dev inputs give the same tokens in training and in the runtime"
        f" (prompt {prompt.template!r}, tokenizer {path.tokenizer[:12]})",
    )


def _folder(context: PreflightContext) -> Path:
    """The folder with the settings of the model to train."""
    config = context.config
    assert config.model is not None
    return local_folder(config.model, config.revision, weights=False)
