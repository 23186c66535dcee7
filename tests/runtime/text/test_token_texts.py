"""The text of each token, put together, is what the tokenizer decodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.text.token_texts import token_texts
from edge.runtime.text.tokenization import Tokenizer

SAMPLES = ("  two {spaces}\n\tand `tabs` \\ ", "plain words, 3.5 %", "привет, São Paulo…", " a")


def save(tokenizer: Any, folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return Tokenizer(path, eos=1)


def t5(shared: Path, _: Path) -> Tokenizer:
    return Tokenizer(shared / "t5-tokenizer" / "tokenizer.json", eos=1)


def extended(shared: Path, folder: Path) -> Tokenizer:
    """With pieces for newlines, tabs, runs of spaces, and other scripts."""
    from transformers import AutoTokenizer

    from edge.train.vocabulary import resolve

    tokenizer = AutoTokenizer.from_pretrained(shared / "t5-tokenizer")
    found = resolve(tokenizer, list(SAMPLES), "extend")
    return save(found.tokenizer.backend_tokenizer, folder)


def bytes_of_text(_: Path, folder: Path) -> Tokenizer:
    """ByT5's."""
    from edge.train.model.byte_tokenizer import byte_tokenizer

    return save(byte_tokenizer(), folder)


def byte_fallback(_: Path, folder: Path) -> Tokenizer:
    """A few pieces and all bytes, with the decoder of Llama's tokenizer."""
    from tokenizers import Tokenizer as RustTokenizer
    from tokenizers import decoders, models, normalizers

    pieces = ["<pad>", "</s>", "<unk>", *(f"<0x{n:02X}>" for n in range(256))]
    pieces += ["▁", "a", "▁two", "words", "▁▁▁", ","]
    scored = [(piece, -1.0 - place) for place, piece in enumerate(pieces)]
    tokenizer: Any = RustTokenizer(models.Unigram(scored, 2, byte_fallback=True))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return save(tokenizer, folder)


MAKERS: tuple[Callable[[Path, Path], Tokenizer], ...] = (t5, extended, bytes_of_text, byte_fallback)


@pytest.mark.parametrize("make", MAKERS)
def test_texts_are_what_decoding_gives(
    make: Callable[[Path, Path], Tokenizer], shared: Path, tmp_path: Path
) -> None:
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
def test_encoded_texts_come_back(
    make: Callable[[Path, Path], Tokenizer], shared: Path, tmp_path: Path
) -> None:
    tokenizer = make(shared, tmp_path)
    texts = token_texts(tokenizer)
    for sample, ids in zip(SAMPLES, tokenizer.encode(SAMPLES), strict=True):
        assert texts.first[ids[0]] is not None
        assert texts.join(ids).decode() == sample


def test_sentinels_have_no_text(shared: Path, tmp_path: Path) -> None:
    texts = token_texts(t5(shared, tmp_path))
    assert [texts.inner[number] for number in (32000, 32099)] == [None, None]
    assert texts.inner[31999] is not None
