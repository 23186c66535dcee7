"""Disfluencies modeled on those of the rows, different in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edge.runtime.errors import UsageError
from edge.train.augment.disfluency import DisfluencyAugmenter
from edge.train.config import TrainConfig
from edge.train.data import Pair
from edge.train.trainer import train

WriteRows = Callable[[str, Iterable[object]], Path]

PLACES = ("Berlin", "Warsaw", "Rome", "Vienna", "Prague", "Madrid", "Lisbon", "Athens")


def spoken_pairs() -> list[Pair]:
    """Corrected places and restarted questions, always with the same marker."""
    pairs = []
    for wrong, right in zip(PLACES, (*PLACES[1:], PLACES[0]), strict=True):
        source = f"go: What river runs through {wrong} oh dear {right}?"
        pairs.append(_pair(source, f"What river runs through {right}?"))
        source = f"go: Who built the oh dear how old is {right} now?"
        pairs.append(_pair(source, f"How old is {right} now?"))
    return pairs


def _pair(source: str, target: str) -> Pair:
    return Pair(source, target, (len("go: "), len(source)))


def test_new_inputs_are_the_target_with_extra_words_of_the_rows() -> None:
    pairs = spoken_pairs()
    augmenter = DisfluencyAugmenter(pairs, ratio=1.0)
    new = [augmenter.augment(pair.source, pair.target, pair.span or ()) for pair in pairs * 20]
    known = {word.strip("?").lower() for pair in pairs for word in pair.source.split()}
    for pair, source in zip(pairs * 20, new, strict=True):
        assert source is not None
        assert source.startswith("go: ")
        heard = [word.strip("?").lower() for word in source.removeprefix("go: ").split()]
        assert " ".join(heard).count("oh dear") == 1
        assert set(heard) <= known
        left = iter(heard)
        assert all(word.strip("?").lower() in left for word in pair.target.split())
    assert len(set(new)) > 60  # not the rows again
    corrected = [text for text in new if text and text.endswith("?") and "through" in text]
    assert any("What river runs through" in text and "oh dear" in text for text in corrected)


def test_an_epoch_follows_from_its_number() -> None:
    pairs = spoken_pairs()
    augmenter = DisfluencyAugmenter(pairs, ratio=0.5, seed=7)

    def epoch(number: int) -> list[str | None]:
        augmenter.set_epoch(number)
        return [augmenter.augment(pair.source, pair.target, pair.span or ()) for pair in pairs]

    first, second = epoch(0), epoch(1)
    assert first != second
    assert None in first
    assert epoch(0) == first


def test_other_rows_are_refused() -> None:
    pairs = [Pair(f"list the files of {n}", f"ls {n}", (0, 5)) for n in range(40)]
    with pytest.raises(UsageError, match=r"--disfluency-ratio 0\.3: only 0 of 40 inputs"):
        DisfluencyAugmenter(pairs, ratio=0.3)


def test_a_run_trains_on_them(write_rows: WriteRows, tmp_path: Path) -> None:
    rows = [
        {"input": pair.source.removeprefix("go: "), "target": pair.target}
        for pair in spoken_pairs() * 4
    ]
    data = write_rows("data/train.jsonl", rows)
    write_rows("data/dev.jsonl", rows[:4])
    config = TrainConfig(
        data.parent,
        tmp_path / "out",
        from_scratch="tiny",
        vocab_size=120,
        prefix="go: ",
        disfluency_ratio=0.5,
        epochs=2,
        batch_size=8,
    )
    result = train(config)
    assert result.record["hyperparameters"]["disfluency_ratio"] == 0.5  # type: ignore[index]
    lengths = result.record["padding"]
    assert lengths["batches"] == 8  # type: ignore[index]
