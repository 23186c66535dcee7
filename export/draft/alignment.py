"""Edits that turn an input's tokens into an answer: tokens to keep, and phrases to insert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from edge.export.draft_head import MAX_PHRASE

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Edit:
    """The edits of one row.

    Attributes:
        kept: for each source token, whether the answer has it.
        inserted: for each source token, the answer's tokens before it that are not from the source.
    """

    kept: list[bool]
    inserted: list[Phrase]


def align(source: Sequence[int], answer: Sequence[int]) -> Edit:
    """The edits from longest common blocks; both end with eos, which is always kept."""
    kept = [False] * len(source)
    inserted: list[Phrase] = [()] * len(source)
    done = 0
    blocks = SequenceMatcher(None, source[:-1], answer[:-1], autojunk=False).get_matching_blocks()
    # The last block is empty and stands for the end, where both have eos.
    for start, start_in_answer, size in blocks:
        if start_in_answer > done:
            inserted[start] = tuple(answer[done:start_in_answer])
        kept[start : start + size] = [True] * size
        done = start_in_answer + size
    kept[-1] = True
    return Edit(kept, inserted)


def frequent_phrases(edits: Iterable[Edit], limit: int) -> list[Phrase]:
    """The most frequent insertions of at most `MAX_PHRASE` tokens that occur twice or more."""
    counts = Counter(phrase for edit in edits for phrase in edit.inserted)
    del counts[()]
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [p for p, count in ranked if count > 1 and len(p) <= MAX_PHRASE][:limit]
