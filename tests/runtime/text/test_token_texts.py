"""The text of each token, put together, is what the tokenizer decodes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge.runtime.text.token_texts import token_texts
from tokenizer_samples import MAKERS, SAMPLES, Maker, bytes_of_text, extended, t5


@pytest.mark.parametrize("make", MAKERS)
def test_texts_are_what_decoding_gives(make: Maker, shared: Path, tmp_path: Path) -> None:
    tokenizer = make(shared, tmp_path)
    texts = token_texts(tokenizer)
    assert len(texts.first) == len(texts.inner) == tokenizer.pieces
    assert texts.inner[0] is texts.inner[1] is texts.inner[2] is None
    starts = [token for token, text in enumerate(texts.first) if text is not None]
    others = [token for token, text in enumerate(texts.inner) if text]
    assert len(others) > 200
    choose = random.Random(5)
    rows = [
        [choose.choice(starts), *choose.choices(others, k=choose.randrange(8))] for _ in range(3000)
    ]
    for row, text in zip(rows, tokenizer.decode(rows), strict=True):
        joined = texts.join(row)
        if "\ufffd" not in text:
            assert joined == text.encode()
        else:  # half a character
            with pytest.raises(UnicodeDecodeError):
                joined.decode()


@pytest.mark.parametrize("make", [extended, bytes_of_text])
def test_encoded_texts_come_back(make: Maker, shared: Path, tmp_path: Path) -> None:
    tokenizer = make(shared, tmp_path)
    texts = token_texts(tokenizer)
    for sample, ids in zip(SAMPLES, tokenizer.encode(SAMPLES), strict=True):
        assert texts.first[ids[0]] is not None
        assert texts.join(ids).decode() == sample


def test_sentinels_have_no_text(shared: Path, tmp_path: Path) -> None:
    texts = token_texts(t5(shared, tmp_path))
    assert [texts.inner[number] for number in (32000, 32099)] == [None, None]
    assert texts.inner[31999] is not None
