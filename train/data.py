"""DATA as rows, rows as tokens, tokens as batches.

DATA is a JSON-lines file or a folder with train.jsonl and dev.jsonl (dev, valid, validation or
val). What may hurt training without stopping it comes back as warnings; nothing is printed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import DataError
from edge.runtime.rows import Columns, Prompt, Row, read_rows, split_file

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from edge.train.augment import Renamer
    from edge.train.config import TrainConfig

IGNORED_LABEL = -100  # what the cross-entropy leaves out
_BUCKET_BATCHES = 50  # batches sorted by length together: little padding, much chance


@dataclass(frozen=True)
class Pair:
    """What the model reads (prompt applied) and what it should write."""

    source: str
    target: str


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
        DataError: a file or row that can't be used, or no dev split and no --dev-share.
        UsageError: the prompt needs a column that a row does not have.
    """
    data = Path(config.data)
    columns = Columns(config.input_column, config.target_column, config.task_column)
    train_file = split_file(data, "train") if data.is_dir() else data
    if train_file is None:
        raise DataError("the folder has no train.jsonl", path=data)
    dev_file = split_file(data, "dev") if data.is_dir() else None
    train_rows = read_rows(train_file, columns)
    size = train_file.stat().st_size
    warnings = []
    if dev_file is not None:
        dev_rows = read_rows(dev_file, columns)
        size += dev_file.stat().st_size
        if config.dev_share is not None:
            warnings.append(f"--dev-share is not used: {dev_file.name} is the dev split")
    elif config.dev_share is not None:
        train_rows, dev_rows = split_by_hash(train_rows, config.dev_share, data)
    else:
        raise DataError(
            "there is no dev split to evaluate on; put a dev.jsonl beside train.jsonl in a folder,"
            " or give --dev-share 0.1: it sets aside about a tenth of the rows, chosen by a hash"
            " of each row's input, so that the same rows are chosen every time",
            path=data,
        )
    prompt = Prompt.parse(config.prefix)
    train, dev = _pairs(train_rows, prompt), _pairs(dev_rows, prompt)
    shared = {pair.source for pair in train} & {pair.source for pair in dev}
    if shared:
        warnings.append(
            f"{len(shared)} inputs of the dev split are in the training split too, such as"
            f" {_short(min(shared))!r}: its figures will flatter the model"
        )
    return Splits(train, dev, size, warnings)


def split_by_hash(rows: Sequence[Row], share: float, path: Path) -> tuple[list[Row], list[Row]]:
    """Rows to train on and to set aside. A row's side depends on its input alone.

    So rows with equal inputs stay together, and adding rows moves none of the old ones.

    Raises:
        DataError: one of the sides came out empty.
    """
    train: list[Row] = []
    dev: list[Row] = []
    for row in rows:
        digest = hashlib.sha256(row.input.encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        (dev if place < share else train).append(row)
    if not train or not dev:
        side = "dev" if train else "training"
        raise DataError(
            f"--dev-share {share} of {len(rows)} rows leaves no {side} row; change it, or name"
            " the splits in files of their own",
            path=path,
        )
    return train, dev


def _pairs(rows: Sequence[Row], prompt: Prompt) -> list[Pair]:
    pairs = []
    for row in rows:
        assert row.target is not None  # read_rows saw to it
        pairs.append(Pair(prompt.apply(row.input, row.fields), row.target))
    return pairs


def tokenize(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
    name: str,
) -> tuple[Dataset, list[str]]:
    """Columns input_ids, labels (lists of ids ending in </s>), source, target; and warnings.

    Texts longer than the limits, in tokens with </s>, are cut; the warnings say how many.
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
        "input_ids": [_cut(ids, max_source_length, eos) for ids in sources],
        "labels": [_cut(ids, max_target_length, eos) for ids in targets],
        "source": [pair.source for pair in pairs],
        "target": [pair.target for pair in pairs],
    }
    return Dataset.from_dict(columns), warnings


def _cut(ids: list[int], limit: int, eos: int) -> list[int]:
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


class LengthBatches:
    """Batches of row numbers of similar length, in a new order every time they are asked for.

    Rows are shuffled, cut into stretches of some fifty batches, and sorted by length within each:
    batches need little padding and still differ from epoch to epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._size = batch_size
        self._random = random.Random(seed)

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self._lengths)))
        self._random.shuffle(order)
        stretch = self._size * _BUCKET_BATCHES
        batches = []
        for start in range(0, len(order), stretch):
            part = sorted(order[start : start + stretch], key=self._lengths.__getitem__)
            batches += [part[at : at + self._size] for at in range(0, len(part), self._size)]
        self._random.shuffle(batches)
        return iter(batches)


class Collator:
    """Rows of a tokenised dataset → padded tensors.

    Gives input_ids and attention_mask (batch, source length), labels (batch, target length) with
    -100 where padded, so that padding neither trains the model nor flatters its loss.
    With a `renamer` the texts are varied and tokenised anew each time.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_source_length: int,
        max_target_length: int,
        renamer: Renamer | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._limits = (max_source_length, max_target_length)
        self._renamer = renamer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        sources = [row["input_ids"] for row in rows]
        targets = [row["labels"] for row in rows]
        if self._renamer is not None:
            sources, targets = self._renamed(rows, sources, targets)
        pad = self._tokenizer.pad_token_id
        input_ids = _padded(sources, pad)
        lengths = torch.tensor([len(ids) for ids in sources])
        mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
        return {
            "input_ids": input_ids,
            "attention_mask": mask.long(),
            "labels": _padded(targets, IGNORED_LABEL),
        }

    def _renamed(
        self,
        rows: Sequence[dict[str, Any]],
        sources: list[list[int]],
        targets: list[list[int]],
    ) -> tuple[list[list[int]], list[list[int]]]:
        assert self._renamer is not None
        sources, targets = list(sources), list(targets)
        eos = self._tokenizer.eos_token_id
        varied: list[tuple[int, str, str]] = []
        for number, row in enumerate(rows):
            texts = self._renamer.vary(row["source"], row["target"])
            if texts is not None:
                varied.append((number, *texts))
        if varied:
            new = self._tokenizer(
                [source for _, source, _ in varied] + [target for _, _, target in varied],
                verbose=False,
            )["input_ids"]
            for place, (number, _, _) in enumerate(varied):
                sources[number] = _cut(new[place], self._limits[0], eos)
                targets[number] = _cut(new[len(varied) + place], self._limits[1], eos)
        return sources, targets


def _padded(texts: Sequence[list[int]], filler: int) -> torch.Tensor:
    import torch

    width = max(len(ids) for ids in texts)
    return torch.tensor([ids + [filler] * (width - len(ids)) for ids in texts])
