"""A model's tokens as an alphabet of texts, for automata over text."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from edge.runtime.engines.base import Vocabulary
from edge.runtime.errors import EdgeError, library_errors
from edge.runtime.registry import missing_extra
from edge.runtime.text.token_texts import TokenTexts, token_texts
from edge.runtime.text.tokenization import Tokenizer

# The two symbols of no text: tokens that may never follow, and the end of an answer.
NEVER, END = 0, 1
_SYMBOLS = (b"\xff[never]", b"\xff[end]")  # 0xff, which no text has, marks special tokens
_MAX_BYTES = 255  # of a token; deeper tries are refused by llguidance
_MARKER = 0xFF


class TextVocabulary:
    """The distinct texts of a model's tokens, and which text each token adds.

    Several tokens may add the same text, and T5's tokens add another one at the start of an answer
    (without the space). So the automaton gets symbols, one for each distinct text.

    Args:
        tokenizer: The artifact's tokenizer.
        vocabulary: Special ids, and ids that may be emitted.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary

    @cached_property
    def texts(self) -> TokenTexts:
        """The text of each token."""
        return token_texts(self.tokenizer)

    @cached_property
    def symbols(self) -> dict[bytes, int]:
        """The symbol of each text, from 2."""
        found: dict[bytes, int] = {}
        for text in (*self.texts.inner, *self.texts.first):
            if text is not None and _is_usable(text):
                found.setdefault(text, len(found) + len(_SYMBOLS))
        return found

    @cached_property
    def inner(self) -> np.ndarray:
        """The symbol [vocab] of each token after other tokens; NEVER for end tokens."""
        return self._symbols_of(self.texts.inner)

    @cached_property
    def first(self) -> np.ndarray:
        """The symbol [vocab] of each token at the start of an answer; NEVER for end tokens."""
        return self._symbols_of(self.texts.first)

    @cached_property
    def empty_first(self) -> np.ndarray:
        """Ids whose text is empty at the start of an answer, such as the lone space of T5."""
        empty = {token for token, text in enumerate(self.texts.first) if text == b""}
        return np.array(sorted(empty - {*self.vocabulary.ends}), dtype=np.int64)

    @cached_property
    def silent_ends(self) -> np.ndarray:
        """Ids that end an answer and add no text."""
        ends = [token for token in self.vocabulary.ends if not self.is_text(token)]
        return np.array(ends, dtype=np.int64)

    @cached_property
    def text_ends(self) -> dict[int, tuple[int, int]]:
        """Ids that end an answer with a text of their own: its symbols as first and inner token."""
        found = {}
        for token in self.vocabulary.ends:
            if self.is_text(token):
                first, inner = self.texts.first[token], self.texts.inner[token]
                found[token] = (self._symbol(first), self._symbol(inner))
        return found

    def is_text(self, token: int) -> bool:
        """Whether a token adds text."""
        return token < len(self.texts.inner) and self.texts.inner[token] is not None

    def _symbol(self, text: bytes | None) -> int:
        return self.symbols.get(text, NEVER) if text else NEVER

    def _symbols_of(self, texts: tuple[bytes | None, ...]) -> np.ndarray:
        found = np.full(self.vocabulary.size, NEVER, dtype=np.int64)
        pieces = min(self.vocabulary.pieces, len(texts))
        found[:pieces] = [self._symbol(text) for text in texts[:pieces]]
        found[list(self.vocabulary.ends)] = NEVER
        return found

    # -- characters ------------------------------------------------------------------------------

    @cached_property
    def characters(self) -> frozenset[str] | None:
        """The characters that the model can write; None if it has all bytes."""
        single = {text[0] for text in self.symbols if len(text) == 1}
        if single >= {*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)}:
            return None
        decoded = (text.decode(errors="replace") for text in self.symbols if len(text) <= 4)
        found = {text for text in decoded if len(text) == 1 and text != "\ufffd"}
        return frozenset(found)

    def unwritable(self, text: str) -> str:
        """The characters of a text that the model can't write, each once."""
        if self.characters is None:
            return ""
        return "".join(dict.fromkeys(char for char in text if char not in self.characters))

    # -- llguidance ------------------------------------------------------------------------------

    @cached_property
    def automaton(self) -> Any:
        """The symbols as llguidance's `LLTokenizer`.

        Raises:
            MissingExtraError: llguidance is not installed.
            EdgeError: llguidance can't use the vocabulary.
        """
        library = import_llguidance()
        with library_errors(EdgeError, "the vocabulary"):
            return library.LLTokenizer(_Symbols([*_SYMBOLS, *self.symbols]))


def import_llguidance() -> Any:
    """The library of the automata.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise missing_extra("constrained decoding", "llguidance", "constrained") from error
    return llguidance


def _is_usable(text: bytes) -> bool:
    return 0 < len(text) <= _MAX_BYTES and _MARKER not in text


class _Symbols:
    """What llguidance asks of a tokenizer: the bytes of each symbol."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = END
    special_token_ids = (NEVER, END)

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens
        self._numbers = {text: number for number, text in enumerate(tokens)}
        self._longest = max(map(len, tokens))

    def __call__(self, text: str | bytes) -> list[int]:
        """The longest symbols that spell a text; bytes without a symbol are skipped."""
        content = text.encode() if isinstance(text, str) else text
        found = []
        start = 0
        while start < len(content):
            for end in range(min(len(content), start + self._longest), start, -1):
                if (number := self._numbers.get(content[start:end])) is not None:
                    found.append(number)
                    start = end
                    break
            else:
                start += 1
        return found
