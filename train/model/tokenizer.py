"""A Unigram tokenizer for a model trained from scratch, learned from the training texts alone.

The normalization is close to that of T5's tokenizer: NFKC and collapsed white space. Each digit is
a piece, so that any number can be copied.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import DataError, UsageError
from edge.train.model.unigram import learn_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
_SPACE = "▁"
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
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    words: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            words[word] += count
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
