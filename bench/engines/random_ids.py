"""Random source ids, the same in every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.runtime.artifact.manifest import Architecture

# Sources that are answered together.
Rows = tuple[tuple[int, ...], ...]

_SPECIAL_TOKENS = 3  # padding, eos and unknown have the first ids


class RandomIds:
    """Draws ids from a model's vocabulary; each sequence ends with eos."""

    def __init__(self, model: Path, shape: Architecture) -> None:
        """Read the size of the vocabulary from `tokenizer.json` in the folder `model`."""
        from tokenizers import Tokenizer

        self._pieces = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab_size()
        self.eos = shape.eos_token_id

    def of_length(self, length: int) -> tuple[int, ...]:
        """Exactly `length` ids, eos included; the same for the same length."""
        return self.rows(length)[0]

    def rows(self, length: int, count: int = 1) -> Rows:
        """`count` different sources of exactly `length` ids each; a smaller count gives the first
        of them.
        """
        generator = np.random.default_rng(length)
        drawn = generator.integers(_SPECIAL_TOKENS, self._pieces, (count, length - 1))
        return tuple((*row, self.eos) for row in drawn.tolist())
