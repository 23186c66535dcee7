"""Vocabulary of the synthetic questions: frames, slots, invented names, markers and fillers."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Said between the wrong words and the right ones.
MARKERS = [
    marker.split()
    for marker in (
        "no wait", "no", "sorry", "no sorry", "I mean", "no I mean", "or wait", "actually no",
        "or rather", "oh sorry", "scratch that", "no make that", "hang on", "let me rephrase",
    )
]  # fmt: skip
FILLERS = [
    filler.split()
    for filler in ("uh", "um", "er", "well", "you know", "hmm", "let me see", "like", "okay so")
]
OPENERS = frozenset(
    (
        "What", "Who", "When", "Where", "Which", "How", "Why", "In", "At", "For", "From", "Did",
        "Is", "Was", "By",
    )
)  # fmt: skip
# Words before a slot that are often repeated with it.
RETRACED = frozenset(("the", "of", "in", "to", "from", "for", "by", "with", "near"))

ROLES = (
    "mayor", "governor", "founder", "chief engineer", "president", "first king", "last queen",
    "leading surgeon", "head librarian", "director", "owner", "captain", "treasurer",
    "ambassador", "harbour master", "chief editor", "bishop", "court painter", "prime minister",
)  # fmt: skip
THINGS = (
    "bridge", "stone tower", "railway station", "cathedral", "old library", "harbour", "canal",
    "city wall", "opera house", "power plant", "lighthouse", "royal garden", "museum", "market",
    "university", "northern gate", "observatory", "water mill", "parliament", "steel factory",
)  # fmt: skip
TOPICS = (
    "population", "annual rainfall", "main export", "official language", "climate", "currency",
    "oldest school", "largest industry", "national anthem", "average income", "economy",
    "religion", "legal system", "coat of arms", "longest river", "highest mountain", "history",
    "postal code", "local cuisine", "system of government",
)  # fmt: skip
PAST_VERBS = (
    "build", "destroy", "visit", "buy", "paint", "restore", "sell", "describe", "leave",
    "rebuild", "photograph", "design", "inspect", "finance", "conquer", "inherit",
)  # fmt: skip
PARTICIPLES = (
    "built", "destroyed", "opened", "restored", "sold", "described", "closed", "rebuilt",
    "designed", "financed", "conquered", "flooded", "named", "discovered", "photographed",
)  # fmt: skip
ADJECTIVES = (
    "cold", "rich", "famous", "crowded", "isolated", "powerful", "unusual", "dangerous",
    "popular", "important", "expensive", "fertile", "dry", "controversial", "difficult",
)  # fmt: skip
GROUPS = (
    "farmers", "merchants", "soldiers", "scientists", "students", "settlers", "pilgrims",
    "fishermen", "miners", "journalists", "nurses", "sailors", "monks", "engineers", "teachers",
)  # fmt: skip
SUBJECTS = (
    "geology", "chemistry", "trade", "medicine", "astronomy", "farming", "music", "navigation",
    "printing", "mathematics", "shipbuilding", "philosophy", "law", "botany", "poetry", "mining",
)  # fmt: skip
SEASONS = (
    "the spring", "the winter", "the civil war", "the long drought", "the industrial revolution",
    "the harvest", "the great fire", "the election", "the siege", "the last ice age",
)  # fmt: skip

# `fill_slot` replaces {slot}. No two frames ask the same question in different words.
FRAMES = tuple(
    frame.split()
    for frame in (
        "Who was the {role} of {place} ?",
        "Who was the {role} of {place} in {year} ?",
        "When did {person} {verb} the {thing} ?",
        "When was the {thing} of {place} {done} ?",
        "When was {person} born ?",
        "Where did {person} study {subject} ?",
        "Where did {person} live in {year} ?",
        "Where is the {thing} of {place} ?",
        "What is the {topic} of {place} ?",
        "What was the {topic} of {place} in {year} ?",
        "What did {person} write about {subject} ?",
        "What did {person} {verb} in {place} ?",
        "What made the {thing} in {place} so {adjective} ?",
        "What is the name of the {thing} near {place} ?",
        "How many {group} came to {place} with {person} ?",
        "How far is {place} from {place} ?",
        "How long did {person} teach {subject} in {place} ?",
        "How {adjective} was {place} during {season} ?",
        "Why did {person} leave {place} for {place} ?",
        "Why is {place} so {adjective} ?",
        "Why did the {group} {verb} the {thing} ?",
        "Which {thing} did {person} {verb} ?",
        "Which {thing} was {done} by {person} ?",
        "In what year did {person} {verb} the {thing} ?",
        "In which region is the {thing} of {place} ?",
        "At what age did {person} leave {place} ?",
        "By whom was the {thing} in {place} {done} ?",
        "For how long was {person} the {role} of {place} ?",
        "Did {person} {verb} the {thing} before {year} ?",
        "Is the {topic} of {place} {adjective} ?",
    )
)

_LISTS = {
    "role": ROLES,
    "thing": THINGS,
    "topic": TOPICS,
    "verb": PAST_VERBS,
    "done": PARTICIPLES,
    "adjective": ADJECTIVES,
    "group": GROUPS,
    "subject": SUBJECTS,
    "season": SEASONS,
}
_NAMED = ("person", "place")
# Sounds of invented words; those listed twice are twice as likely.
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z",
    "br", "dr", "gr", "kr", "st", "tr", "sh", "th",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou")
_CODAS = ("", "", "n", "r", "l", "s", "m", "t", "ck", "nd", "rn", "x")


@dataclass(frozen=True)
class Slot:
    """Words `start` to `end` of a question, and the kind of thing that they name."""

    kind: str
    start: int
    end: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """The words of a fluent question (the question mark is one) and its slots."""

    words: list[str]
    slots: list[Slot]


@dataclass(frozen=True)
class NamePool:
    """Invented names: those for all rows, and those for held-out rows only."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def invent_names(rng: random.Random, seen: int, unseen: int) -> NamePool:
    """Two disjoint sets of pronounceable names; none is a word of the vocabulary."""
    known = {word.lower() for frame in FRAMES for word in frame}
    known.update(word for entries in _LISTS.values() for entry in entries for word in entry.split())
    known.update(word.lower() for phrase in [*MARKERS, *FILLERS] for word in phrase)
    names: list[str] = []
    while len(names) < seen + unseen:
        name = invent_word(rng).capitalize()
        if name.lower() not in known:
            known.add(name.lower())
            names.append(name)
    return NamePool(tuple(names[:seen]), tuple(names[seen:]))


def invent_word(rng: random.Random) -> str:
    """A pronounceable word of one or two syllables, in lower case."""
    count = rng.choice((1, 2, 2))
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count)]
    return "".join(syllables) + rng.choice(_CODAS)


def draw_question(rng: random.Random, pool: NamePool, unseen: bool) -> Question:
    """A random fluent question; with `unseen` it has a name, and all its names are unseen."""
    frame = rng.choice(FRAMES)
    while unseen and not any(word.strip("{}") in _NAMED for word in frame):
        frame = rng.choice(FRAMES)
    words: list[str] = []
    slots: list[Slot] = []
    for word in frame:
        if not word.startswith("{"):
            words.append(word)
            continue
        kind = word.strip("{}")
        used = {slot.words for slot in slots if slot.kind == kind}
        filled = fill_slot(rng, kind, pool, unseen)
        while tuple(filled) in used:  # not "from Orvel to Orvel"
            filled = fill_slot(rng, kind, pool, unseen)
        slots.append(Slot(kind, len(words), len(words) + len(filled), tuple(filled)))
        words.extend(filled)
    return Question(words, slots)


def fill_slot(
    rng: random.Random,
    kind: str,
    pool: NamePool,
    unseen: bool,
    other_than: tuple[str, ...] | None = None,
) -> list[str]:
    """Random words for a slot of a kind, different from `other_than`."""
    names = pool.unseen if unseen else pool.seen
    while True:
        if kind == "person":
            filled = [rng.choice(names) for _ in range(rng.choice((1, 2)))]
        elif kind == "place":
            filled = [rng.choice(names)]
            if rng.random() < 0.15:
                filled = [rng.choice(("Lake", "Mount", "Port", "New", "Upper")), *filled]
        elif kind == "year":
            filled = [str(rng.randint(1100, 2020))]
        else:
            filled = rng.choice(_LISTS[kind]).split()
        if tuple(filled) != other_than:
            return filled


def finish(words: list[str]) -> str:
    """Join words to a text that starts with a capital letter."""
    text = " ".join(words).replace(" ?", "?")
    return text[0].upper() + text[1:]
