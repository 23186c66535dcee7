"""Batches by length: every row once, little padding, an order that depends on the seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edge.train.augment.epoch import EpochAugmentation
from edge.train.augment.rename import Renamer
from edge.train.data import Pair
from edge.train.data.bucketing import (
    MAX_WASTE,
    measure_padding,
    padded_tokens,
    plan_batches,
    plan_fixed_count,
)
from edge.train.data.sampler import EpochDataset, LengthGroupedBatchSampler, ResumableBatchSampler


def _lengths(rows: int, seed: int = 0) -> list[tuple[int, int]]:
    """Lengths like those of questions: most are short, a few very long; targets differ a little."""
    rng = random.Random(seed)
    inputs = [min(300, 5 + int(rng.expovariate(1 / 20))) for _ in range(rows)]
    return [(length, max(2, length - rng.randrange(15))) for length in inputs]


def _once(batches: list[list[int]], rows: int) -> bool:
    return sorted(row for batch in batches for row in batch) == list(range(rows))


@pytest.mark.parametrize("size", [1, 16, 1000])
def test_batches_of_rows(size: int) -> None:
    lengths = _lengths(937)
    batches = plan_batches(lengths, rows=size)
    assert _once(batches, 937)
    assert len(batches) == -(-937 // size)
    assert max(map(len, batches)) <= size
    padding = measure_padding(batches, lengths, (300, 300))
    assert padding.bucketed <= padding.unsorted <= padding.fixed


@pytest.mark.parametrize(("rows", "tokens"), [(3000, 512), (3000, 4096), (60, 4096), (7, 64)])
def test_batches_of_tokens_keep_the_limit_and_waste_at_most_5_percent(
    rows: int, tokens: int
) -> None:
    lengths = _lengths(rows)
    batches = plan_batches(lengths, tokens=tokens)
    assert _once(batches, rows)
    assert all(padded_tokens(batch, lengths) <= tokens or len(batch) == 1 for batch in batches)
    real = sum(map(sum, lengths))
    filled = sum(padded_tokens(batch, lengths) for batch in batches)
    assert 1 - real / filled <= MAX_WASTE
    padding = measure_padding(batches, lengths, (300, 300))
    assert padding.bucketed == pytest.approx(1 - real / filled)
    assert padding.fixed == pytest.approx(1 - real / (rows * 600))


def test_a_fixed_number_of_batches() -> None:
    lengths = _lengths(500)
    count = len(plan_batches(lengths, tokens=1000))
    for wanted in (count - 2, count, count + 5):
        batches = plan_fixed_count(_lengths(500, seed=1), tokens=1000, count=wanted)
        assert len(batches) == wanted
        assert _once(batches, 500)


def _rows(count: int) -> list[dict[str, Any]]:
    texts = [f"what is the bridge in Berlin {'by Anna ' * (n % 9)}" for n in range(count)]
    return [
        {"input_ids": [5] * (6 + n % 9), "labels": [6] * 4, "source": text, "target": "a river"}
        for n, text in enumerate(texts)
    ]


def _epochs(
    tokenizer: Any, seed: int, *, renamed: bool, **limit: int | None
) -> tuple[EpochDataset, LengthGroupedBatchSampler]:
    rows = _rows(120)
    augmentation = None
    if renamed:
        pairs = [Pair(row["source"], row["target"]) for row in rows[:5]]
        augmentation = EpochAugmentation(Renamer(pairs, ratio=0.7, seed=seed))
    dataset = EpochDataset(
        rows, tokenizer, max_source_length=40, max_target_length=40, augmentation=augmentation
    )
    limits = {"batch_size": None, "tokens": None, **limit}
    return dataset, LengthGroupedBatchSampler(dataset, seed=seed, **limits)


@pytest.mark.parametrize("limit", [{"batch_size": 8}, {"tokens": 120}])
@pytest.mark.parametrize("renamed", [False, True])
def test_an_epoch_follows_from_seed_and_number(
    small_tokenizer: Path, limit: dict[str, int], renamed: bool
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(small_tokenizer))
    dataset, batches = _epochs(tokenizer, 3, renamed=renamed, **limit)
    seen = []
    for _ in range(3):
        order = list(batches)
        assert len(order) == len(batches)
        assert _once(order, 120)
        seen.append((order, [dict(dataset[row]) for batch in order for row in batch]))
    assert seen[0][0] != seen[1][0]
    assert len({str(rows) for _, rows in seen}) == 3
    # A process that resumes in the last epoch sees the same rows.
    again, later = _epochs(tokenizer, 3, renamed=renamed, **limit)
    later.epoch = 2
    order = list(later)
    assert (order, [dict(again[row]) for batch in order for row in batch]) == seen[2]
    other_seed = list(_epochs(tokenizer, 4, renamed=renamed, **limit)[1])
    assert other_seed != seen[0][0]


@pytest.mark.parametrize("skipped", [0, 4, 15, 31, 37])
def test_a_run_resumes_at_any_batch(small_tokenizer: Path, skipped: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(small_tokenizer))

    def seen(skipped: int) -> list[list[dict[str, Any]]]:
        dataset, batches = _epochs(tokenizer, 5, renamed=True, batch_size=8)
        chained = ResumableBatchSampler(batches, 37, skipped)
        found = [[dict(dataset[row]) for row in batch] for batch in chained]
        assert len(found) == len(chained) == 37 - skipped
        return found

    assert seen(skipped) == seen(0)[skipped:]


def test_renamed_rows_are_batched_by_their_new_lengths(small_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(small_tokenizer))
    dataset, batches = _epochs(tokenizer, 0, renamed=True, tokens=150)
    for _ in range(2):
        order = list(batches)
        lengths = dataset.lengths
        real = sum(map(sum, lengths))
        assert max(max(pair) for pair in lengths) <= 40
        assert 1 - real / sum(padded_tokens(batch, lengths) for batch in order) <= MAX_WASTE + 0.02
