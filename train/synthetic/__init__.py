"""Synthetic spoken questions with disfluencies → the clean question. Made up, and labeled so.

The task is that of Gupta et al., "Disfl-QA: A Benchmark Dataset for Understanding Disfluencies in
Question Answering" (2021); no row of it is used. A clean question is a frame with its slots filled;
it is then spoken badly: words are repeated, fillers slip in, a slot is said wrong and corrected,
the question is broken off and another one asked. What to drop follows from the words alone, so a
model can learn it; where and how much to drop differs in every row, so it can't be memorized.

Names are invented. Some held-out rows hold names that occur in no training row; they are marked
`"unseen": true` and are to be scored apart.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edge.runtime.errors import UsageError
from edge.train.synthetic import vocabulary as words

DEFAULT_SIZES: Mapping[str, int] = MappingProxyType({"train": 30000, "dev": 300, "test": 500})
UNSEEN_SHARE = 0.3  # of the held-out rows
_CLEAN_SHARE = 0.04  # rows that are fluent already: a cleaner must leave those alone
_MAX_TRIES = 200  # draws that give an earlier row again, one after the other, before giving up

# Kinds of disfluency and how often each is the main one of a row.
_KINDS = (("correct", 0.36), ("restart", 0.26), ("repeat", 0.18), ("filler", 0.2))

Row = dict[str, object]


def write_dataset(
    folder: str | Path, seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES
) -> dict[str, Path]:
    """Write train.jsonl, dev.jsonl, test.jsonl and a README.md into `folder`; returns the files.

    The same seed and sizes give the same bytes. Existing files of these names are replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    splits = generate(seed, sizes)
    files = {}
    for split, rows in splits.items():
        files[split] = folder / f"{split}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files[split].write_text("".join(lines), encoding="utf-8")
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
    (folder / "README.md").write_text(_README.format(seed=seed, counts=counts), encoding="utf-8")
    return files


def generate(seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES) -> dict[str, list[Row]]:
    """Rows by split: id, input, target, unseen, origin. No input or target is in two splits.

    Raises:
        UsageError: more rows are asked for than there are distinct questions.
    """
    names = random.Random(f"{seed}/names")
    pool = words.invent_names(names, seen=4000, unseen=600)
    taken: set[str] = set()
    splits: dict[str, list[Row]] = {}
    # Held-out rows are drawn first, so that a larger training split leaves them as they are.
    for split in sorted(sizes, key=lambda name: (name == "train", name)):
        rng = random.Random(f"{seed}/{split}")
        rows: list[Row] = []
        for number in range(sizes[split]):
            unseen = split != "train" and number < round(sizes[split] * UNSEEN_SHARE)
            source, target = _fresh_pair(rng, pool, unseen, taken)
            rows.append({"input": source, "target": target})
        rng.shuffle(rows)
        splits[split] = [{"id": f"{split}-{number:05d}", **row} for number, row in enumerate(rows)]
    _mark(splits)
    return {split: splits[split] for split in sizes}


def _mark(splits: dict[str, list[Row]]) -> None:
    """Add `unseen` and `origin`. What counts is what training really holds, not what was drawn."""
    known = {word for row in splits.get("train", []) for word in _spelled(row)}
    for split, rows in splits.items():
        for row in rows:
            row["unseen"] = split != "train" and not _spelled(row) <= known
            row["origin"] = "synthetic"


def _spelled(row: Row) -> set[str]:
    """The words of both texts in lower case; numbers are no words, their digits are all known."""
    return set(re.findall(r"[a-z]+", f"{row['input']} {row['target']}".lower()))


def _fresh_pair(
    rng: random.Random, pool: words.NamePool, unseen: bool, taken: set[str]
) -> tuple[str, str]:
    """A (spoken, clean) pair whose two texts no earlier row has; both are added to `taken`."""
    for _ in range(_MAX_TRIES):
        question = words.draw_question(rng, pool, unseen)
        spoken = _speak_badly(rng, question, pool, unseen)
        source, target = words.finish(spoken), words.finish(question.words)
        if source not in taken and target not in taken:
            taken.update((source, target))
            return source, target
    raise UsageError("the generator has no more distinct questions; ask for fewer rows")


def _speak_badly(
    rng: random.Random, question: words.Question, pool: words.NamePool, unseen: bool
) -> list[str]:
    """The words of the question as they might come out."""
    if rng.random() < _CLEAN_SHARE:
        return list(question.words)
    kind = rng.choices([k for k, _ in _KINDS], [weight for _, weight in _KINDS])[0]
    if kind == "correct":
        spoken = _correct(rng, question, pool, unseen)
    elif kind == "restart":
        other = words.draw_question(rng, pool, unseen)
        spoken = restart(rng, question.words, other.words)
    elif kind == "repeat":
        spoken = repeat_words(rng, question.words)
    else:
        spoken = add_fillers(rng, question.words, rng.choice((1, 1, 2)))
    # A speaker who stumbles once often stumbles again.
    if kind in ("correct", "restart") and rng.random() < 0.2:
        spoken = add_fillers(rng, spoken, 1) if rng.random() < 0.6 else repeat_words(rng, spoken)
    return spoken


def _correct(
    rng: random.Random, question: words.Question, pool: words.NamePool, unseen: bool
) -> list[str]:
    """One slot is said wrong, then right, sometimes from the preposition or article before it."""
    slot = rng.choice(question.slots)
    wrong = words.fill_slot(rng, slot.kind, pool, unseen, other_than=slot.words)
    before, right = question.words[: slot.start], question.words[slot.start : slot.end]
    after = question.words[slot.end :]
    lead = 0  # how many words before the slot are said again with it
    while lead < min(2, len(before)) and before[-1 - lead].lower() in words.RETRACED:
        lead += 1
    if lead and rng.random() < 0.5:
        right = before[-lead:] + right
    return before + wrong + rng.choice(words.MARKERS) + right + after


def restart(rng: random.Random, question: list[str], other: list[str]) -> list[str]:
    """Another question is begun and broken off, then this one is asked from its start."""
    cut = rng.randint(2, max(2, len(other) - 2))
    clean = list(question)
    if rng.random() < 0.4:
        clean[0] = clean[0].lower()  # as transcripts write it in the middle of an utterance
    return other[:cut] + rng.choice(words.MARKERS) + clean


def repeat_words(rng: random.Random, spoken: list[str]) -> list[str]:
    """One or two neighboring words are said twice."""
    length = min(rng.choice((1, 1, 2)), len(spoken) - 1)
    start = rng.randrange(len(spoken) - length)
    said = spoken[start : start + length]
    again = [said[0].lower(), *said[1:]] if start == 0 else said
    return spoken[:start] + said + again + spoken[start + length :]


def add_fillers(rng: random.Random, spoken: list[str], count: int) -> list[str]:
    """Fillers between words."""
    spoken = list(spoken)
    for _ in range(count):
        at = rng.randrange(len(spoken))
        filler = rng.choice(words.FILLERS)
        if at == 0:
            spoken[0] = spoken[0].lower() if spoken[0] in words.OPENERS else spoken[0]
        spoken[at:at] = filler
    return spoken


_README = """# Synthetic spoken questions

Every row is made by a program (`edge.train.synthetic`, seed {seed}); none was spoken by a person
and none is taken from a published data set. Names in it are invented.

Rows: {counts}. Columns: `input` (a question with restarts, corrections, repeats and fillers),
`target` (the question that was meant), `unseen` (held-out rows only: it holds names that occur in
no training row), `origin`.

Figures measured on these rows say that the tool chain works. They say nothing about real speech.
"""
