"""DATA as rows, rows as tokens, tokens as batches.

DATA is a JSON-lines file or a folder with train.jsonl and dev.jsonl (dev, valid, validation or
val). What may hurt training without stopping it comes back as warnings; nothing is printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import DataError
from edge.runtime.rows import SPLITS, Columns, Prompt, Row, read_rows, split_file

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from edge.train.config import TrainConfig

IGNORED_LABEL = -100  # what the cross-entropy leaves out


@dataclass(frozen=True)
class Pair:
    """What the model reads (prompt applied) and what it should write.

    `span` says where in the source the row's own input stands, `task` which task the row is of.
    """

    source: str
    target: str
    span: tuple[int, int] | None = field(default=None, compare=False)
    task: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Splits:
    """The pairs to train on and to evaluate on, and how big their files are."""

    train: list[Pair]
    dev: list[Pair]
    bytes: int
    warnings: list[str] = field(default_factory=list)


def load_splits(config: TrainConfig) -> Splits:
    """Read DATA as `config` says: columns, prompt and, on request, a dev split made by hash.

    Raises:
        DataError: a file or row that can't be used, or no dev split and no --dev-ratio.
        UsageError: the prompt needs a column that a row does not have.
    """
    data = Path(config.data)
    columns = Columns(config.input_column, config.target_column, config.task_column)
    files = data_files(data)
    train_rows = read_rows(files["train"], columns)
    size = files["train"].stat().st_size
    warnings = []
    if "dev" in files:
        dev_rows = read_rows(files["dev"], columns)
        size += files["dev"].stat().st_size
        if config.dev_ratio is not None:
            warnings.append(f"--dev-ratio is not used: {files['dev'].name} is the dev split")
    elif config.dev_ratio is not None:
        train_rows, dev_rows = split_by_hash(train_rows, config.dev_ratio, data)
    else:
        raise DataError(
            "there is no dev split to evaluate on; put a dev.jsonl beside train.jsonl in a folder,"
            " or give --dev-ratio 0.1: it sets aside about a tenth of the rows, chosen by a hash"
            " of each row's input, so that the same rows are chosen every time",
            path=data,
        )
    prompt = Prompt.parse(config.prefix)
    train, dev = make_pairs(train_rows, prompt), make_pairs(dev_rows, prompt)
    shared = {pair.source for pair in train} & {pair.source for pair in dev}
    if shared:
        warnings.append(
            f"{len(shared)} inputs of the dev split are in the training split too, such as"
            f" {_short(min(shared))!r}: its figures will flatter the model"
        )
    return Splits(train, dev, size, warnings)


def data_files(data: Path) -> dict[str, Path]:
    """The files of DATA by split: train always, dev and test where a folder has them.

    Raises:
        DataError: a folder without train.jsonl.
    """
    if not data.is_dir():
        return {"train": data}
    files = {split: path for split in SPLITS if (path := split_file(data, split)) is not None}
    if "train" not in files:
        raise DataError("the folder has no train.jsonl", path=data)
    return files


def normalize_for_dedup(text: str) -> str:
    """Equal for texts that differ in case or white space only."""
    return " ".join(text.split()).casefold()


def hash_fraction(key: str) -> float:
    """A number from 0 to below 1 that follows from the text alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_hash(rows: Sequence[Row], share: float, path: Path) -> tuple[list[Row], list[Row]]:
    """Rows to train on and to set aside. A row's side depends on its input alone.

    So rows with equal inputs stay together, and adding rows moves none of the old ones.

    Raises:
        DataError: one of the sides came out empty.
    """
    train: list[Row] = []
    dev: list[Row] = []
    for row in rows:
        (dev if hash_fraction(row.input) < share else train).append(row)
    if not train or not dev:
        side = "dev" if train else "training"
        raise DataError(
            f"--dev-ratio {share} of {len(rows)} rows leaves no {side} row; change it, or name"
            " the splits in files of their own",
            path=path,
        )
    return train, dev


def make_pairs(rows: Sequence[Row], prompt: Prompt) -> list[Pair]:
    """Rows with the prompt applied.

    Raises:
        UsageError: the prompt needs a column that a row does not have.
    """
    head = Prompt(prompt.template.partition("{input}")[0])
    pairs = []
    for row in rows:
        assert row.target is not None  # read_rows saw to it
        source = prompt.apply(row.input, row.fields)
        start = len(head.apply("", row.fields))
        pairs.append(Pair(source, row.target, (start, start + len(row.input)), row.task))
    return pairs


def tokenize(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    name: str,
) -> tuple[Dataset, list[str]]:
    """Columns input_ids, labels (lists of ids ending in </s>), source, target, task, span.

    Texts longer than the limits, in tokens with </s>, are cut; warnings say how many.
    """
    from datasets import Dataset

    sources = tokenizer([pair.source for pair in pairs], verbose=False)["input_ids"]
    targets = tokenizer([pair.target for pair in pairs], verbose=False)["input_ids"]
    warnings = [
        *_unknown_warning(pairs, targets, tokenizer, name),
        *_cut_warning(sources, max_source_length, "inputs", "--max-source-length", name),
        *_cut_warning(targets, max_target_length, "targets", "--max-target-length", name),
    ]
    eos = tokenizer.eos_token_id
    columns = {
        "input_ids": [cut_ids(ids, max_source_length, eos) for ids in sources],
        "labels": [cut_ids(ids, max_target_length, eos) for ids in targets],
        "source": [pair.source for pair in pairs],
        "target": [pair.target for pair in pairs],
        "task": [pair.task for pair in pairs],
        "span": [None if pair.span is None else list(pair.span) for pair in pairs],
    }
    return Dataset.from_dict(columns), warnings


def cut_ids(ids: list[int], limit: int, eos: int) -> list[int]:
    """At most `limit` ids, the last of which is </s>."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], eos]


def _unknown_warning(
    pairs: Sequence[Pair],
    targets: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> Iterator[str]:
    unknown = tokenizer.unk_token_id
    hit = [number for number, ids in enumerate(targets) if unknown in ids]
    if hit:
        yield (
            f"{len(hit)} of {len(pairs)} {name} targets hold characters that the model's"
            f" vocabulary lacks (they become {tokenizer.unk_token} and can't be generated),"
            f" such as {_short(pairs[hit[0]].target)!r}"
        )


def _cut_warning(
    texts: Sequence[list[int]], limit: int, what: str, option: str, name: str
) -> Iterator[str]:
    longest = max((len(ids) for ids in texts), default=0)
    if longest > limit:
        count = sum(len(ids) > limit for ids in texts)
        yield (
            f"{count} of {len(texts)} {name} {what} are longer than {limit} tokens and are cut"
            f" ({option}; the longest has {longest})"
        )


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Collator:
    """Rows of a tokenized dataset → padded tensors.

    Gives input_ids and attention_mask (batch, source length), labels (batch, target length) with
    -100 where padded, so that padding neither trains the model nor flatters its loss.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._pad = tokenizer.pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        sources = [row["input_ids"] for row in rows]
        input_ids = _padded(sources, self._pad)
        lengths = torch.tensor([len(ids) for ids in sources])
        mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
        return {
            "input_ids": input_ids,
            "attention_mask": mask.long(),
            "labels": _padded([row["labels"] for row in rows], IGNORED_LABEL),
        }


def _padded(texts: Sequence[list[int]], filler: int) -> torch.Tensor:
    import torch

    width = max(len(ids) for ids in texts)
    return torch.tensor([ids + [filler] * (width - len(ids)) for ids in texts])
