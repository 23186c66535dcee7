"""The vocabulary of a model made from scratch."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest

from edge.runtime.errors import DataError, UsageError
from edge.train.model.tokenizer import build_tokenizer, learn_escaped_pieces, save_tokenizer
from edge.train.synthetic import generate
from edge.train.vocabulary import resolve
from edge.train.vocabulary.lost import restored


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


def test_lines_of_json_are_few_pieces(texts: list[str], tmp_path: Path) -> None:
    """Newline, indentation and the punctuation around them are one piece, without letters."""
    from transformers import AutoTokenizer

    rows = [json.dumps({"words": text.split()}, indent=2) for text in texts[:600]]
    save_tokenizer(build_tokenizer(rows, vocab_size=600), tmp_path)
    first = resolve(AutoTokenizer.from_pretrained(str(tmp_path)), rows, "extend")
    again = learn_escaped_pieces(first, rows)
    assert again.added.keys() == {"\n", " "}
    assert len(again.tokenizer) <= len(first.tokenizer)
    assert all(restored(rows, again.tokenizer.backend_tokenizer))
    pieces = again.tokenizer.convert_ids_to_tokens(range(len(again.tokenizer)))
    newline, space = (pieces[again.added[c]] for c in ("\n", " "))
    assert f'",{newline}{space * 3}' in pieces
    assert not any(newline in piece and any(c.isalpha() for c in piece) for piece in pieces)
    lengths = [sum(map(len, v.tokenizer(rows)["input_ids"])) for v in (first, again)]
    assert lengths[1] < 0.85 * lengths[0]


def test_texts_without_lost_characters_are_learned_once(texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(build_tokenizer(texts, vocab_size=600), tmp_path)
    first = resolve(AutoTokenizer.from_pretrained(str(tmp_path)), texts, "extend")
    assert learn_escaped_pieces(first, texts) is first
