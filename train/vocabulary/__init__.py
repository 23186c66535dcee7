"""Text that a tokenizer can't write: its lost characters, and pieces for them.

T5's tokenizer has no piece for `{ } < \\ ^ ~` and the backtick, and drops newlines, tabs and
repeated spaces. `extend` gives each of them a piece.
"""

from edge.train.vocabulary.embeddings import initialize_rows
from edge.train.vocabulary.extension import Extension, extend
from edge.train.vocabulary.policy import (
    CONFIG_KEY,
    Vocabulary,
    describe,
    rebuilt,
    recorded_characters,
    resolve,
)

__all__ = [
    "CONFIG_KEY",
    "Extension",
    "Vocabulary",
    "describe",
    "extend",
    "initialize_rows",
    "rebuilt",
    "recorded_characters",
    "resolve",
]
