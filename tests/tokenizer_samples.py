"""Tokenizers of all kinds that T5-like models have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    from transformers import ByT5Tokenizer

    from edge.train.model.byte_tokenizer import byte_tokenizer

    return save(byte_tokenizer(ByT5Tokenizer(), folder), folder)


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


Maker = Callable[[Path, Path], Tokenizer]
MAKERS: tuple[Maker, ...] = (t5, extended, bytes_of_text, byte_fallback)
