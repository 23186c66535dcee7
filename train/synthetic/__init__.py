"""Synthetic data set: spoken questions with disfluencies as inputs, fluent questions as targets.

The task is that of Gupta et al., "Disfl-QA: A Benchmark Dataset for Understanding Disfluencies in
Question Answering" (2021); none of its rows is used. A fluent question is a frame with filled
slots. Disfluencies are added to it: repeated words, fillers, a slot said wrong and corrected, or
another question that is abandoned. What to drop follows from the words alone, so a model can learn
it. Where and how much to drop differs in every row, so it cannot be memorized.

Texts are written with capitals and a question mark, or as a speech recognizer prints them: in lower
case, without one. Input and target are written alike.

Most names are invented. Some held-out rows contain names that occur in no training row. They are
marked `"unseen": true`, to be scored separately.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from edge.runtime.errors import UsageError
from edge.train.synthetic import lexicon
from edge.train.synthetic import vocabulary as words

DEFAULT_SIZES: Mapping[str, int] = MappingProxyType({"train": 48000, "dev": 300, "test": 500})
UNSEEN_RATIO = 0.3  # of the held-out rows contain unseen names
_FLUENT_RATIO = 0.04  # of the rows are fluent already, which a model must leave unchanged
_MAX_TRIES = 200  # consecutive duplicates before giving up

_PAUSE_RATIO = 0.4  # of the restarts have a filler or nothing where others have "no wait"

# Kinds of disfluency, and the probability that each is the main one of a row.
_KINDS = (("correct", 0.36), ("restart", 0.26), ("repeat", 0.18), ("filler", 0.2))

Row = dict[str, object]


def write_dataset(
    folder: str | Path, seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES
) -> dict[str, Path]:
    """Write train.jsonl, dev.jsonl, test.jsonl and a README.md into `folder`.

    Existing files are replaced. The same seed and sizes give the same bytes.

    Returns:
        The files by split.

    Raises:
        UsageError: As `generate`.
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
    """Generate rows by split, with the columns id, input, target, unseen and origin.

    No input and no target is in two splits.

    Raises:
        UsageError: There are fewer distinct questions than rows requested.
    """
    names = random.Random(f"{seed}/names")
    pool = words.invent_names(names, seen=20000, unseen=600)
    taken: set[str] = set()
    splits: dict[str, list[Row]] = {}
    # Held-out rows come first, so that they do not depend on the size of the training split.
    for split in sorted(sizes, key=lambda name: (name == "train", name)):
        rng = random.Random(f"{seed}/{split}")
        rows: list[Row] = []
        for number in range(sizes[split]):
            unseen = split != "train" and number < round(sizes[split] * UNSEEN_RATIO)
            source, target = _fresh_pair(rng, pool, unseen, taken)
            rows.append({"input": source, "target": target})
        rng.shuffle(rows)
        splits[split] = [{"id": f"{split}-{number:05d}", **row} for number, row in enumerate(rows)]
    _mark(splits)
    return {split: splits[split] for split in sizes}


def _mark(splits: dict[str, list[Row]]) -> None:
    """Add `unseen` and `origin`; a row is unseen if a word of it is in no training row."""
    known = {word for row in splits.get("train", []) for word in _vocabulary(row)}
    for split, rows in splits.items():
        for row in rows:
            row["unseen"] = split != "train" and not _vocabulary(row) <= known
            row["origin"] = "synthetic"


def _vocabulary(row: Row) -> set[str]:
    """The words of both texts in lower case, without numbers."""
    return set(re.findall(r"[a-z]+", f"{row['input']} {row['target']}".lower()))


def _fresh_pair(
    rng: random.Random, pool: words.NamePool, unseen: bool, taken: set[str]
) -> tuple[str, str]:
    """A disfluent and a fluent text that no earlier row has; both are added to `taken`."""
    for _ in range(_MAX_TRIES):
        question = words.draw_question(rng, pool, unseen)
        disfluent = _add_disfluency(rng, question, pool, unseen)
        style = words.draw_style(rng)
        source, target = words.finish(disfluent, style), words.finish(question.words, style)
        if source not in taken and target not in taken:
            taken.update((source, target))
            return source, target
    raise UsageError("the generator has no more distinct questions; request fewer rows")


def _add_disfluency(
    rng: random.Random, question: words.Question, pool: words.NamePool, unseen: bool
) -> list[str]:
    """The words of the question with one or two disfluencies, or rarely none."""
    if rng.random() < _FLUENT_RATIO:
        return list(question.words)
    kind = rng.choices([k for k, _ in _KINDS], [weight for _, weight in _KINDS])[0]
    if kind == "correct":
        said = _correct(rng, question, pool, unseen)
    elif kind == "restart":
        other = words.draw_question(rng, pool, unseen)
        pauses = rng.random() < _PAUSE_RATIO
        markers = [*lexicon.PAUSES, []] if pauses else lexicon.MARKERS
        said = restart(rng, question.words, other.words, markers)
    elif kind == "repeat":
        said = repeat_words(rng, question.words, pauses=lexicon.PAUSES)
    else:
        said = add_fillers(rng, question.words, rng.choice((1, 1, 2)))
    # Disfluencies often come in pairs.
    if kind != "filler" and rng.random() < 0.15:
        said = add_fillers(rng, said, 1) if rng.random() < 0.7 else repeat_words(rng, said)
    return said


def _correct(
    rng: random.Random, question: words.Question, pool: words.NamePool, unseen: bool
) -> list[str]:
    """Say one slot wrong, then right, sometimes with the preposition or article before it."""
    slot = rng.choice(question.slots)
    wrong = words.fill_slot(rng, slot.kind, pool, unseen, other_than=slot.words)
    before, right = question.words[: slot.start], question.words[slot.start : slot.end]
    after = question.words[slot.end :]
    repeated = 0  # words before the slot that are repeated with it
    any_word = rng.random() < 0.25
    while repeated < min(3, len(before)) and (
        any_word or before[-1 - repeated].lower() in lexicon.RETRACED
    ):
        repeated += 1
    marker = rng.choice(lexicon.MARKERS)
    if repeated and rng.random() < 0.5:
        right = before[-rng.randint(1, repeated) :] + right
        # "to Rome uh to Paris": the repeated word shows what is corrected.
        if rng.random() < _PAUSE_RATIO:
            marker = rng.choice(lexicon.PAUSES)
    return before + wrong + marker + right + after


def restart(
    rng: random.Random,
    question: list[str],
    other: list[str],
    markers: Sequence[list[str]] = lexicon.MARKERS,
) -> list[str]:
    """Begin another question and abandon it, then ask this one from its start."""
    longest = max(2, len(other) - 2)
    cut = min(rng.randint(1, longest), rng.randint(1, longest))  # most are abandoned soon
    repair = list(question)
    if rng.random() < 0.4:
        repair[0] = repair[0].lower()  # as transcripts write it within an utterance
    return other[:cut] + rng.choice(markers) + repair


def repeat_words(
    rng: random.Random, question: list[str], pauses: Sequence[list[str]] = ()
) -> list[str]:
    """Say one to four neighboring words twice, sometimes with one of `pauses` in between."""
    length = min(rng.choice((1, 1, 1, 2, 2, 3, 4)), len(question) - 1)
    start = rng.randrange(len(question) - length)
    said = question[start : start + length]
    again = [said[0].lower(), *said[1:]] if start == 0 else said
    pause = rng.choice(pauses) if pauses and rng.random() < 0.5 else []
    return question[:start] + said + pause + again + question[start + length :]


def add_fillers(rng: random.Random, question: list[str], count: int) -> list[str]:
    """Insert `count` fillers before or between words."""
    said = list(question)
    for _ in range(count):
        at = rng.randrange(len(said))
        if at == 0 or rng.random() < 0.15:
            at = 0
            said[0] = said[0].lower() if said[0] in lexicon.OPENERS else said[0]
        said[at:at] = rng.choice(lexicon.OPENING_FILLERS if at == 0 else lexicon.FILLERS)
    return said


_README = """# Synthetic spoken questions

All rows are generated by a program (`edge.train.synthetic`, seed {seed}). None was spoken by a
person, and none is taken from a published data set. Most names are invented. Half of the rows are
in lower case, most of those without a question mark.

Rows: {counts}. Columns: `input` (a question with restarts, corrections, repeats and fillers),
`target` (the intended question), `unseen` (true only for held-out rows with names that occur in no
training row), `origin`.

Metrics on these rows show that the tool chain works. They say nothing about real speech.
"""
