"""Data pipeline: DATA as rows, rows as (source, target) pairs, pairs as tokens, tokens as batches.

DATA is a JSON-lines file or a folder with train.jsonl and dev.jsonl (dev, valid, validation or
val). Problems that do not stop training come back as warnings; nothing is printed.
"""

from edge.train.data.collator import IGNORED_LABEL, Collator
from edge.train.data.pairs import Pair, Splits, data_files, load_splits, make_pairs, texts_of
from edge.train.data.split import normalize_for_dedup, split_by_hash
from edge.train.data.tokenization import tokenize

__all__ = [
    "IGNORED_LABEL",
    "Collator",
    "Pair",
    "Splits",
    "data_files",
    "load_splits",
    "make_pairs",
    "normalize_for_dedup",
    "split_by_hash",
    "texts_of",
    "tokenize",
]
