"""Models from scratch: the copying circuit, and the renaming of rare words."""

from __future__ import annotations

import random

import pytest
import torch

from edge.runtime.errors import UsageError
from edge.train.augment.rename import Renamer
from edge.train.data import Pair
from edge.train.model.from_scratch import SHAPES, get_shape, new_model


def _copied(shape: str, copy_biased: bool, vocab_size: int = 1000) -> float:
    """Ratio of random tokens that an untrained model predicts when it should repeat its input."""
    model = new_model(SHAPES[shape], vocab_size=vocab_size, copy_biased=copy_biased).eval()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocab_size, (32, 20), generator=generator)
    with torch.no_grad():
        best = model(input_ids=ids, labels=ids).logits.argmax(-1)
    # Nothing precedes the first token, so nothing can point at it.
    return float((best == ids)[:, 1:].float().mean())


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_an_untrained_model_copies(shape: str) -> None:
    assert _copied(shape, copy_biased=True) > 0.7
    assert _copied(shape, copy_biased=False) < 0.1


def test_shape_and_reproducibility() -> None:
    first, second, other = (new_model(SHAPES["tiny"], seed=seed) for seed in (0, 0, 1))
    assert 1.7e6 < sum(p.numel() for p in first.parameters()) < 1.9e6
    assert first.lm_head.weight is first.shared.weight
    assert torch.equal(first.shared.weight, second.shared.weight)
    assert not torch.equal(first.shared.weight, other.shared.weight)


def test_unknown_shape() -> None:
    with pytest.raises(UsageError, match="tiny, mini"):
        get_shape("huge")


def test_rare_words_are_renamed_alike_on_both_sides() -> None:
    pairs = [
        Pair(f"what is uh Zorba{chr(97 + n)}?", f"what is Zorba{chr(97 + n)}?") for n in range(26)
    ]
    renamer = Renamer(pairs, ratio=1.0, rare=5, seed=0)
    for pair in pairs:
        renamed = renamer.augment(pair.source, pair.target)
        assert renamed is not None
        source, target = renamed
        assert source.replace("uh ", "") == target
        assert source.startswith("what is uh ")
        name = target.removeprefix("what is ").removesuffix("?")
        assert name != pair.target[8:-1]
        assert name[0].isupper()


def test_common_words_stay_and_the_ratio_is_kept() -> None:
    pairs = [Pair(f"say river {n}", "river") for n in range(100)]
    assert Renamer(pairs, ratio=1.0, rare=5).augment("say river 3", "river") is None
    rng = random.Random(0)
    rare = [Pair("".join(rng.choices("abcdefgh", k=9)), "x") for _ in range(400)]
    renamer = Renamer(rare, ratio=0.25)
    renamed = sum(renamer.augment(pair.source, pair.target) is not None for pair in rare)
    assert 60 < renamed < 140


def test_a_word_that_only_the_target_has_is_left_alone() -> None:
    renamer = Renamer([], ratio=1.0)
    renamed = renamer.augment("remove file", "erase file")
    assert renamed is not None
    assert renamed[1].startswith("erase ")
