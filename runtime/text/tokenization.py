"""The tokenizer of an artifact: text to ids and back, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.runtime.artifact import TOKENIZER_MAX_BYTES
from edge.runtime.errors import ArtifactError
from edge.runtime.platform.memory import give_back_free_memory


class Tokenizer:
    """A `tokenizer.json`, with T5's convention that a source ends with eos."""

    def __init__(self, path: str | Path, *, eos: int) -> None:
        """Read the file.

        Raises:
            ArtifactError: missing, too large, or not a tokenizer that this library reads.
        """
        from tokenizers import Tokenizer as RustTokenizer

        path = Path(path)
        try:
            if path.stat().st_size > TOKENIZER_MAX_BYTES:
                raise ArtifactError(f"{path}: larger than any tokenizer")
            self._tokenizer = RustTokenizer.from_file(str(path))
        except OSError as error:
            raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
        except ArtifactError:
            raise
        except Exception as error:  # the Rust library raises bare Exception
            raise ArtifactError(f"{path}: not a tokenizer.json ({error})") from None
        # A limit or padding saved in the file would cut inputs in silence.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eos = eos
        give_back_free_memory()  # the file as parsed: 8 MB for T5's 32,100 pieces

    @property
    def pieces(self) -> int:
        """Number of ids that have a piece of text (special tokens included)."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Source ids of each text, eos at the end."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self.eos] for encoding in encodings]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, special tokens left out."""
        return self._tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)
