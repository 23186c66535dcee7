"""Text of an answer token by token: the whole text, at the same cost for each token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.runtime.text.incremental import IncrementalDecoder
from edge.runtime.text.stop_strings import StopStringCriteria
from tokenizer_samples import MAKERS, SAMPLES, Maker, t5


@pytest.mark.parametrize("make", MAKERS)
def test_texts_of_tokens_make_the_text(make: Maker, shared: Path, tmp_path: Path) -> None:
    tokenizer = make(shared, tmp_path)
    rows = [ids[:-1] for ids in tokenizer.encode([*SAMPLES, " ".join(SAMPLES * 5)])]
    choose = random.Random(3)
    known = sorted({token for row in rows for token in row})
    rows += [choose.choices(known, k=200) for _ in range(20)]
    rows.append([0, 2, *rows[-2], 0])  # special tokens have no text
    exact = 0
    for row, whole in zip(rows, tokenizer.decode(rows), strict=True):
        decoder = IncrementalDecoder(lambda ids: tokenizer.decode([ids])[0])
        text = "".join(map(decoder.append, row))
        if "\ufffd" not in whole:
            assert text == whole
            exact += 1
    assert exact > len(SAMPLES)


def test_each_token_costs_the_same(shared: Path, tmp_path: Path) -> None:
    tokenizer = t5(shared, tmp_path)
    lengths: list[int] = []

    def decode(rows: Sequence[Sequence[int]]) -> list[str]:
        lengths.extend(map(len, rows))
        return tokenizer.decode(rows)

    [ids] = tokenizer.encode(["the old bridge of Verona was built when? " * 60])
    decoder = IncrementalDecoder(lambda row: decode([row])[0])
    assert "".join(map(decoder.append, ids)) == tokenizer.decode([ids])[0]
    assert max(lengths) < 100
    lengths.clear()
    criteria = StopStringCriteria(["no such text"], decode, None)
    assert not any(criteria(0, token) for token in ids)
    assert max(lengths) < 100


def test_a_stop_string_across_tokens_ends_its_row(shared: Path, tmp_path: Path) -> None:
    tokenizer = t5(shared, tmp_path)
    texts = ["word " * 50 + "the old bridge", "word " * 80]
    rows = tokenizer.encode(texts)
    criteria = StopStringCriteria(["unheard of", "ld bri"], tokenizer.decode, None)
    for place, (first, second) in enumerate(zip(*rows, strict=False)):
        assert criteria(1, second) is False
        text = tokenizer.decode([rows[0][: place + 1]])[0]
        assert criteria(0, first) is ("ld bri" in text)
