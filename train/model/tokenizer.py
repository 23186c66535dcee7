"""A Unigram tokenizer for a model trained from scratch, learned from the training texts alone.

The normalization is close to that of T5's tokenizer: NFKC and collapsed white space. Each digit is
a piece, so that any number can be copied. A piece has either letters, or punctuation and white
space: the end of a line of JSON and the indentation of the next.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import DataError, UsageError
from edge.train.model.unigram import learn_pieces
from edge.train.vocabulary import Extension, Vocabulary, rebuilt
from edge.train.vocabulary.extension import escapes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
_SPACE = "▁"
# Punctuation, and the private characters for newlines and other lost characters: together, so that
# a frequent sequence is one piece. No escapes but those that Oniguruma and JavaScript share.
_PUNCTUATION = _SPACE + "?[!-/:-@\\[-`{-~\\p{P}\ue000-\uf8ff]+"
# All printable ASCII, so that held-out English text has no unknown characters.
_ALPHABET = [c for c in string.printable if not c.isspace()]
_MIN_VOCAB = len(_ALPHABET) + 4


def build_tokenizer(texts: Iterable[str], *, vocab_size: int = 2000) -> Tokenizer:
    """A Unigram tokenizer with at most `vocab_size` pieces; ids 0, 1, 2 are <pad>, </s>, <unk>.

    Like T5's tokenizer it appends </s>.

    Raises:
        UsageError: `vocab_size` is too small for the alphabet.
        DataError: The texts are empty.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    if vocab_size < _MIN_VOCAB:
        raise UsageError(f"--vocab-size {vocab_size}: must be at least {_MIN_VOCAB}")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(_PUNCTUATION), behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    words = _count_words(tokenizer, texts)
    if not words:
        raise DataError("cannot learn a tokenizer: the training texts are empty")
    specials = [(PAD, 0.0), (EOS, 0.0), (UNK, 0.0)]
    pieces = learn_pieces(words, [*_ALPHABET, _SPACE], vocab_size - len(specials))
    tokenizer.model = models.Unigram([*specials, *pieces], unk_id=2, byte_fallback=False)
    tokenizer.add_special_tokens([PAD, EOS, UNK])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return tokenizer


def learn_escaped_pieces(vocabulary: Vocabulary, texts: Iterable[str]) -> Vocabulary:
    """Learn the pieces of a new tokenizer again, with the characters that it was extended by.

    `build_tokenizer` does not see newlines and indentation. They become pieces together with the
    punctuation around them, which makes JSON and code shorter by a third.

    Args:
        vocabulary: A tokenizer of `build_tokenizer` that was extended.
        texts: The training texts.

    Returns:
        A vocabulary of the same size; one without lost characters as it is.
    """
    extension = vocabulary.extension
    if extension is None:
        return vocabulary
    values = json.loads(extension.tokenizer_json)
    private = escapes(values)
    if not private:
        return vocabulary
    specials, older = values["model"]["vocab"][:3], values["model"]["vocab"][3:]
    words = _count_words(vocabulary.tokenizer.backend_tokenizer, texts)
    pieces = learn_pieces(words, [p for p, _ in older if len(p) == 1], len(older))
    values["model"]["vocab"] = [*specials, *map(list, pieces)]
    numbers = {piece: number for number, (piece, _) in enumerate(values["model"]["vocab"])}
    added = {
        character: numbers[private.get(character, character)]
        for character in extension.added
        if len(character) == 1
    }
    tokenizer_json = json.dumps(values, ensure_ascii=False)
    return replace(
        vocabulary,
        tokenizer=rebuilt(vocabulary.tokenizer, tokenizer_json),
        extension=Extension(tokenizer_json, added, related={}),
    )


def _count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """What the pieces are parts of, with the number of its occurrences."""
    words: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            words[word] += count
    return words


def save_tokenizer(
    tokenizer: Tokenizer, folder: str | Path, *, model_max_length: int = 512
) -> None:
    """Write tokenizer.json and tokenizer_config.json so that AutoTokenizer loads the folder."""
    folder = Path(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "backend": "tokenizers",
        "eos_token": EOS,
        "model_max_length": model_max_length,
        "pad_token": PAD,
        "tokenizer_class": "TokenizersBackend",
        "unk_token": UNK,
    }
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
