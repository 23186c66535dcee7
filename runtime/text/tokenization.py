"""The tokenizer of an artifact: text to token ids and back, without transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.runtime.artifact import TOKENIZER_MAX_BYTES
from edge.runtime.errors import ArtifactError, InputTooLongError, library_errors
from edge.runtime.platform.memory import give_back_free_memory
from edge.runtime.text.tokenizer_checks import (
    check_components,
    check_strings,
    check_vocabulary,
    components,
)

MAX_TEXT_CHARS = 8 << 20  # as long as the longest line of a data file
_MAX_START_TOKENS = 4
# Ids times the longest piece: the most text that decoding may give.
_MAX_DECODED_CHARS = 64 << 20


class Tokenizer:
    """A `tokenizer.json`; as T5 expects, encoded texts end with eos.

    Texts begin with the special tokens that the file puts there: none in T5, one in CodeT5.

    Args:
        path: The file.
        eos: The id of eos.

    Raises:
        ArtifactError: The file is missing, too large, not a tokenizer, or one that multiplies the
            length of texts or can take very long on them.
    """

    def __init__(self, path: str | Path, *, eos: int) -> None:
        from tokenizers import Tokenizer as RustTokenizer

        self._path = path = Path(path)
        try:
            if path.stat().st_size > TOKENIZER_MAX_BYTES:
                raise ArtifactError(f"{path}: larger than {TOKENIZER_MAX_BYTES >> 20} MiB")
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
        check_strings(data, path)
        with library_errors(ArtifactError, path, "not a tokenizer.json"):
            # What was checked, not the file again.
            self._tokenizer: Any = RustTokenizer.from_buffer(data)
            self._growth = check_components(self._tokenizer, path)
            self._pieces, self._longest_piece = check_vocabulary(self._tokenizer, path)
        # Truncation saved in the file would silently cut inputs.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eos = eos
        self._start = self._start_tokens()
        give_back_free_memory()  # of the parsed file: 8 MB for T5's 32,100 pieces

    @property
    def pieces(self) -> int:
        """Number of ids with a piece of text, special tokens included."""
        return self._pieces

    def names(self) -> list[str | None]:
        """The token of each id below `pieces`; None for ids without one."""
        return [self._tokenizer.id_to_token(number) for number in range(self._pieces)]

    @property
    def decoder_types(self) -> frozenset[str]:
        """The types of the decoder's steps, such as "Metaspace" or "ByteLevel"."""
        decoder = self._tokenizer.decoder
        values = {} if decoder is None else json.loads(decoder.__getstate__())
        return frozenset(str(step["type"]) for step in components(values))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, eos last; rows are not padded.

        Raises:
            InputTooLongError: A text of many megabytes.
            ArtifactError: The tokenizers library fails on a text.
        """
        texts = list(texts)
        limit = MAX_TEXT_CHARS // self._growth
        if (longest := max(map(len, texts), default=0)) > limit:
            raise InputTooLongError(
                f"the text has {longest:,} characters, the tokenizer takes at most {limit:,}"
            )
        with library_errors(ArtifactError, self._path, "the tokenizer fails on this text"):
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [[*self._start, *encoding.ids, self.eos] for encoding in encodings]

    def _start_tokens(self) -> list[int]:
        """The special tokens before every text; none unless eos is the only one after it."""
        with library_errors(ArtifactError, self._path, "the tokenizer fails on an empty text"):
            if not 1 < self._tokenizer.num_special_tokens_to_add(False) <= _MAX_START_TOKENS + 1:
                return []
            plain, whole = (
                self._tokenizer.encode("", add_special_tokens=s).ids for s in (False, True)
            )
        start: list[int] = whole[: -len(plain) - 1]
        return start if whole == [*start, *plain, self.eos] else []

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, without special tokens.

        Raises:
            ArtifactError: An id is not a token's, or the tokenizers library fails on the ids.
        """
        ids = [list(row) for row in rows]
        if sum(map(len, ids)) * self._longest_piece > _MAX_DECODED_CHARS:
            raise ArtifactError(f"{self._path}: its pieces are too long to decode this many tokens")
        with library_errors(ArtifactError, self._path, "token ids can't be decoded"):
            return list(self._tokenizer.decode_batch(ids, skip_special_tokens=True))


def cut_ids(ids: Sequence[int], limit: int, eos: int) -> list[int]:
    """At most `limit` token ids; if there are more, the last of them becomes `eos`."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], eos]
