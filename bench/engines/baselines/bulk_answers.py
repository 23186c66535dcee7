"""Bulk work: many texts in, texts out, sorted by length and batched the same way everywhere."""

from __future__ import annotations

import time
from typing import Any

from .spec import Generate

_MAX_TOKENS = 512
_PAD = 0  # of every T5
_UNK = 2


def padded(rows: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Rows padded to the longest, and their mask: 1 for a token, 0 for padding."""
    width = max(len(row) for row in rows)
    ids = [row + [_PAD] * (width - len(row)) for row in rows]
    return ids, [[1] * len(row) + [0] * (width - len(row)) for row in rows]


def answer_texts(generate: Generate, request: dict[str, Any]) -> dict[str, Any]:
    """Seconds to answer `texts`, tokenizing and decoding included, and the answers' total length.

    Texts are sorted by their number of tokens and answered in batches of `batch`, each with exactly
    `new_tokens`. Inputs are cut at 512 tokens.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(request["tokenizer"])
    texts, batch, new_tokens = request["texts"], request["batch"], request["new_tokens"]
    started = time.perf_counter()
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    rows = [row if len(row) <= _MAX_TOKENS else [*row[: _MAX_TOKENS - 1], row[-1]] for row in rows]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    answers = [""] * len(rows)
    for first in range(0, len(order), batch):
        places = order[first : first + batch]
        found = generate([rows[place] for place in places], new_tokens)
        ids = [[_token_id(tokenizer, token) for token in tokens] for tokens in found]
        for place, text in zip(places, tokenizer.decode_batch(ids), strict=True):
            answers[place] = text
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "characters": sum(len(text) for text in answers)}


def _token_id(tokenizer: Any, token: Any) -> int:
    """The id of a token; CTranslate2's answers are pieces.

    Random weights also choose ids between the last piece and the padded size of the vocabulary,
    for which CTranslate2 has names of its own.
    """
    if not isinstance(token, str):
        return int(token)
    found = tokenizer.token_to_id(token)
    return _UNK if found is None else int(found)
