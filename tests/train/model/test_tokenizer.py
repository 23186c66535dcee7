"""The vocabulary of a model made from scratch."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from edge.runtime.errors import DataError, UsageError
from edge.train.model.tokenizer import build_tokenizer, save_tokenizer
from edge.train.synthetic import generate


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rows = generate(0, {"train": 1500})["train"]
    return [str(row[column]) for row in rows for column in ("input", "target")]


def test_special_tokens_and_end(texts: list[str]) -> None:
    tokenizer = build_tokenizer(texts, vocab_size=800)
    assert [tokenizer.id_to_token(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert tokenizer.get_vocab_size() <= 800
    assert tokenizer.encode("Who was it?").tokens[-1] == "</s>"


def test_all_printable_ascii_comes_back(texts: list[str]) -> None:
    tokenizer = build_tokenizer(texts, vocab_size=800)
    for text in ("".join(string.printable.split()), "a {b} \\c~ <d> `e` ^ 1984", *texts[:200]):
        ids = tokenizer.encode(text).ids
        assert 2 not in ids
        assert tokenizer.decode(ids) == text


def test_digits_are_single_and_frequent_words_are_whole(texts: list[str]) -> None:
    tokens = build_tokenizer(texts, vocab_size=800).encode("What did they do in 1984?").tokens
    assert tokens[:2] == ["▁What", "▁did"]
    assert tokens[-6:-2] == ["1", "9", "8", "4"]


def test_unknown_characters_are_unknown(texts: list[str]) -> None:
    assert 2 in build_tokenizer(texts, vocab_size=800).encode("漢字").ids


def test_characters_of_the_texts_are_known(texts: list[str]) -> None:
    tokenizer = build_tokenizer([*texts, "Zürich, São Paulo?"], vocab_size=800)
    assert tokenizer.decode(tokenizer.encode("São Zürich").ids) == "São Zürich"


def test_same_texts_same_tokenizer(texts: list[str]) -> None:
    built = [build_tokenizer(texts, vocab_size=600).to_str() for _ in range(2)]
    assert built[0] == built[1]


def test_transformers_loads_it(texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer(texts, vocab_size=800)
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)
    for text in texts[:50]:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer.encode(text).ids
        assert loaded.decode(ids, skip_special_tokens=True) == text


def test_too_small_or_nothing_to_learn() -> None:
    with pytest.raises(UsageError, match="--vocab-size 20"):
        build_tokenizer(["a b"], vocab_size=20)
    with pytest.raises(DataError, match="empty"):
        build_tokenizer([])
