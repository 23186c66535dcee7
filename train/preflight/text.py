"""Checks of a run's texts: special tokens, what survives the tokenizer, lengths, parity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.platform.json_file import read_json
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer
from edge.train.output.record import RECORD_NAME
from edge.train.preflight import (
    FAILED,
    OK,
    WARNING,
    Findings,
    PreflightContext,
    pair_lengths,
    sample,
    share_status,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARITY_ROWS = 1000
_MAX_RECORD_BYTES = 64 << 20


def special_tokens(subject: PreflightContext) -> Findings:
    """pad, </s> and <unk> are there, belong to the model, and </s> is put at the end."""
    tokenizer, settings = subject.tokenizer, subject.settings
    if tokenizer is None or settings is None:
        return
    problems = [
        f"it has no {name} token"
        for name in ("pad", "eos", "unk")
        if getattr(tokenizer, f"{name}_token_id") is None
    ]
    for name in ("pad", "eos"):
        ours, models = (getattr(x, f"{name}_token_id", None) for x in (tokenizer, settings))
        if None not in (ours, models) and ours != models:
            problems.append(f"its {name} token is {ours}, config.json says {models}")
    pieces, rows = len(tokenizer), settings.vocab_size
    if pieces > rows:
        problems.append(f"it has {pieces} pieces, the embedding {rows} rows")
    start = getattr(settings, "decoder_start_token_id", None)
    if not isinstance(start, int) or not 0 <= start < rows:
        problems.append(f"decoder_start_token_id is {start}")
    if tokenizer("a", verbose=False)["input_ids"][-1:] != [tokenizer.eos_token_id]:
        problems.append("it does not end a text with </s>")
    if problems:
        yield FAILED, f"the tokenizer does not fit a T5: {'; '.join(problems)}"
        return
    yield OK, f"{pieces:,} pieces, pad {tokenizer.pad_token_id}, </s> {tokenizer.eos_token_id}"


def round_trip(subject: PreflightContext) -> Findings:
    """Targets come back from the tokenizer as they went in, but for normalization."""
    tokenizer = subject.tokenizer
    if tokenizer is None or not subject.train_pairs:
        return
    targets = [pair.target for pair in subject.train_pairs]
    ids = tokenizer(targets, verbose=False)["input_ids"]
    unknown = [n for n, row in enumerate(ids) if tokenizer.unk_token_id in row]
    back = tokenizer.batch_decode(ids, skip_special_tokens=True)
    changed = [
        n
        for n, text in enumerate(back)
        if n not in set(unknown) and _normal(text, tokenizer) != _normal(targets[n], tokenizer)
    ]
    for rows, what in (
        (unknown, "hold characters that the vocabulary lacks, so that they can't be generated"),
        (changed, "come back from the tokenizer as other texts"),
    ):
        if rows:
            yield (
                share_status(len(rows), len(targets)),
                f"{len(rows):,} of {len(targets):,} targets {what}, such as"
                f" {targets[rows[0]][:80]!r}",
            )
    if not unknown and not changed:
        yield OK, f"{len(targets):,} targets come back as they went in"


def _normal(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    normalizer = tokenizer.backend_tokenizer.normalizer
    text = normalizer.normalize_str(text) if normalizer is not None else text
    return " ".join(text.replace("▁", " ").split())


def lengths_in_range(subject: PreflightContext) -> Findings:
    """Few rows are longer than the maximum lengths, or --long takes care of them."""
    if not subject.lengths:
        return
    config, count = subject.config, len(subject.lengths)
    limits = (config.max_source_length or 0, config.max_target_length)
    options = ("--max-source-length", "--max-target-length")
    fine = True
    for side, name in enumerate(("inputs", "targets")):
        longest = max(pair[side] for pair in subject.lengths)
        over = sum(pair[side] > limits[side] for pair in subject.lengths)
        if over:
            fine = False
            fate = {"drop": "are left out", "chunk": "are dealt to several rows"}.get(config.long)
            if fate is None or (config.long == "chunk" and side == 1):
                fate = "are cut"
            yield (
                share_status(over, count),
                f"{over:,} of {count:,} {name} are longer than {limits[side]} tokens (the longest"
                f" {longest}) and {fate} ({options[side]}, --long)",
            )
    if fine:
        source, target = (max(pair[side] for pair in subject.lengths) for side in (0, 1))
        yield OK, f"at most {source} and {target} tokens, of {limits[0]} and {limits[1]}"


def output_cap(subject: PreflightContext) -> Findings:
    """The answers that generation may give are as long as the dev targets."""
    if subject.tokenizer is None or subject.splits is None:
        return
    cap = _saved_cap(subject.config.model) or subject.config.max_target_length
    dev = sample(subject.splits.dev)
    over = sum(target > cap for _, target in pair_lengths(dev, subject.tokenizer))
    if over:
        yield (
            share_status(over, len(dev)),
            f"answers end after {cap} tokens, {over:,} of {len(dev):,} dev targets are longer"
            " (--max-target-length, or max_new_tokens in the model's generation_config.json)",
        )
    else:
        yield OK, f"{cap} tokens, no dev target is longer"


def _saved_cap(model: str | None) -> int | None:
    """max_new_tokens of a local folder's generation_config.json; training keeps it."""
    if model is None:
        return None
    value = _read_json(Path(model) / "generation_config.json").get("max_new_tokens")
    return value if type(value) is int and value > 0 else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path, _MAX_RECORD_BYTES)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def evaluation_parity(subject: PreflightContext) -> Findings:
    """Dev rows become the same ids in training and at run time, and as in an earlier training."""
    tokenizer, splits = subject.tokenizer, subject.splits
    if tokenizer is None or splits is None:
        return
    file = subject.workplace / f"runtime-{TOKENIZER_NAME}"
    tokenizer.backend_tokenizer.save(str(file))
    prompt = Prompt.parse(subject.config.prefix)
    texts = [pair.source for pair in splits.dev[:_PARITY_ROWS]]
    ours = Tokenizer(file, eos=tokenizer.eos_token_id).encode(texts)
    theirs = tokenizer(texts, verbose=False)["input_ids"]
    other = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    if other:
        yield (
            FAILED,
            f"{len(other):,} of {len(texts):,} dev inputs become other tokens at run time than in"
            f" training, such as {other[0][:80]!r}; its tokenizer.json differs from the tokenizer",
        )
        return
    path = TextFingerprint.of(file, prompt.template)
    model = subject.config.model
    recorded = _read_json(Path(model) / RECORD_NAME).get("text_path") if model else None
    if isinstance(recorded, dict):
        for difference in path.differences(recorded):
            yield WARNING, f"{model} was trained on otherwise: {difference}"
    yield (
        OK,
        f"{len(texts):,} dev inputs become the same tokens in training and at run time"
        f" (prompt {prompt.template!r}, tokenizer {path.tokenizer[:12]})",
    )
