"""The tokenizer of an artifact: text to token ids and back, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.runtime.artifact import TOKENIZER_MAX_BYTES
from edge.runtime.errors import ArtifactError
from edge.runtime.platform.memory import give_back_free_memory


class Tokenizer:
    """A `tokenizer.json`; as T5 expects, encoded texts end with eos.

    Args:
        path: The file.
        eos: The id of eos.

    Raises:
        ArtifactError: The file is missing, too large, or not a tokenizer.
    """

    def __init__(self, path: str | Path, *, eos: int) -> None:
        from tokenizers import Tokenizer as RustTokenizer

        path = Path(path)
        try:
            if path.stat().st_size > TOKENIZER_MAX_BYTES:
                raise ArtifactError(f"{path}: larger than {TOKENIZER_MAX_BYTES >> 20} MiB")
            self._tokenizer = RustTokenizer.from_file(str(path))
        except OSError as error:
            raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
        except ArtifactError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtifactError(f"{path}: not a tokenizer.json ({error})") from None
        # Truncation saved in the file would silently cut inputs.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.eos = eos
        give_back_free_memory()  # of the parsed file: 8 MB for T5's 32,100 pieces

    @property
    def pieces(self) -> int:
        """Number of ids with a piece of text, special tokens included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, eos last; rows are not padded."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self.eos] for encoding in encodings]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, without special tokens."""
        return list(
            self._tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)
        )
