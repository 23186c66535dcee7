"""Questions of the synthetic data set: frames, slots, invented names and writing styles."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge.train.synthetic import lexicon

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
        "When was the {thing} {done} ?",
        "Where was the {thing} {done} ?",
        "Why was the {thing} {done} ?",
        "When was it {done} ?",
        "Where was it {done} ?",
        "Who {done} it ?",
        "Who {done} the {thing} ?",
        "Who {done} the {thing} in {place} ?",
        "Who wrote the {work} ?",
        "Who wrote the {work} about {subject} ?",
        "Who is the {role} of {place} ?",
        "Who was {person} ?",
        "Who won the {event} in {year} ?",
        "Who lives in the {thing} ?",
        "How old is the {thing} ?",
        "How {adjective} is the {thing} ?",
        "How {adjective} is the {thing} in {place} ?",
        "How long is the {thing} open ?",
        "How long does the {vehicle} to {place} take ?",
        "How many {group} live in {place} ?",
        "How many {group} were at the {event} ?",
        "How much does a {item} cost ?",
        "How much is a {item} in {place} ?",
        "How do I get to the {thing} ?",
        "How do I get from {place} to {place} ?",
        "How does a {item} work ?",
        "Where is the nearest {thing} ?",
        "Where was {person} born ?",
        "Where is {place} ?",
        "Where can I buy a {item} ?",
        "Where did the {event} take place ?",
        "Where does the {vehicle} to {place} leave from ?",
        "What is the weather like in {place} ?",
        "What is the {topic} of the {thing} ?",
        "What is {person} known for ?",
        "What happened in {place} in {year} ?",
        "What time does the {thing} open ?",
        "What time does the {thing} close on {day} ?",
        "What time does the {vehicle} to {place} leave ?",
        "What language do {group} speak in {place} ?",
        "What did the {role} say about the {event} ?",
        "When is the next {vehicle} to {place} ?",
        "When does the {event} start ?",
        "When did the {event} in {place} end ?",
        "Which {vehicle} goes to {place} ?",
        "Why did the {event} start ?",
        "Can I take a {item} on the {vehicle} ?",
        "Can you tell me the {topic} of {place} ?",
        "Do I need a {item} for {place} ?",
        "Does the {vehicle} stop in {place} ?",
        "Are there any {group} in {place} ?",
        "Is there a {thing} near {place} ?",
        "Is the {thing} open on {day} ?",
        "Was {person} born in {place} ?",
        "Will it rain in {place} on {day} ?",
        "Why is the {thing} {adjective} ?",
        "Why are {group} so {adjective} ?",
        "Why do {group} leave {place} ?",
        "Where do {group} live ?",
        "Where can I rent a {item} ?",
        "What was the name of the {thing} ?",
        "What was the name of {person} ?",
        "What is the {most} {thing} in {place} ?",
        "What is the {most} {vehicle} to {place} ?",
        "Which {group} have the {most} {item} ?",
        "Who was the first {role} in {place} ?",
        "Who has the {most} {item} in the {thing} ?",
        "When does the next {vehicle} leave ?",
        "When is the next {event} ?",
        "How many {group} are in a {thing} ?",
        "How much does a ticket to {place} cost ?",
        "How far is it from the {thing} to {place} ?",
        "How {adjective} is Mount {place} ?",
        "Did {person} win the {event} ?",
        "Is there a {thing} near the {thing} ?",
        "Which {vehicle} goes to the {thing} ?",
        "How do I find the {item} of {person} ?",
    )
)

_LISTS = {
    "role": lexicon.ROLES,
    "thing": lexicon.THINGS,
    "topic": lexicon.TOPICS,
    "verb": lexicon.PAST_VERBS,
    "done": lexicon.PARTICIPLES,
    "adjective": lexicon.ADJECTIVES,
    "group": lexicon.GROUPS,
    "subject": lexicon.SUBJECTS,
    "season": lexicon.SEASONS,
    "item": lexicon.ITEMS,
    "vehicle": lexicon.VEHICLES,
    "day": lexicon.DAYS,
    "event": lexicon.EVENTS,
    "work": lexicon.WORKS,
    "most": lexicon.SUPERLATIVES,
}
_NAMED = ("person", "place")
# Nouns that may be an invented word, so that a model learns to copy words that it does not know.
_OPEN = ("thing", "topic", "group", "subject", "item", "work", "event", "role")
_INVENTED_RATIO = 0.15  # of the fillings of those
_REAL_RATIO = 0.4  # of the names
# Of invented names repeat a syllable: a model must learn which of two equal pieces to copy next.
_REPEAT_RATIO = 0.15
_RECENT_RATIO = 0.5  # of the years, which people ask about most
# Sounds of invented words; those listed twice are twice as likely.
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z",
    "br", "dr", "gr", "kr", "st", "tr", "sh", "th", "fl", "pl", "cl", "ch", "ph", "sp", "y", "qu",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou", "ee", "oo", "ie")
_CODAS = (
    "", "", "n", "r", "l", "s", "m", "t", "ck", "nd", "rn", "x", "ff", "ll", "tt", "ss", "d", "p",
    "g", "ng", "y",
)  # fmt: skip


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
    said = [*lexicon.MARKERS, *lexicon.FILLERS, *lexicon.OPENING_FILLERS, *lexicon.PAUSES]
    known.update(word.lower() for phrase in said for word in phrase)
    known.update(name.lower() for name in (*lexicon.PLACES, *lexicon.PEOPLE))
    names: list[str] = []
    while len(names) < seen + unseen:
        name = _invent_name(rng).capitalize()
        if name.lower() not in known:
            known.add(name.lower())
            names.append(name)
    return NamePool(tuple(names[:seen]), tuple(names[seen:]))


def invent_word(rng: random.Random) -> str:
    """A pronounceable word of one or two syllables, in lower case."""
    return "".join(_invent_syllables(rng, rng.choice((1, 2, 2)))) + rng.choice(_CODAS)


def _invent_name(rng: random.Random) -> str:
    """A word as of `invent_word`, but of up to four syllables, two of which may be equal."""
    syllables = _invent_syllables(rng, rng.choice((1, 2, 2, 3, 3)))
    if rng.random() < _REPEAT_RATIO:
        syllables.insert(rng.randint(0, len(syllables)), rng.choice(syllables))
    return "".join(syllables) + rng.choice(_CODAS)


def _invent_syllables(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count)]


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
        real = not unseen and rng.random() < _REAL_RATIO
        if kind == "person":
            choices = lexicon.PEOPLE if real else names
            filled = [rng.choice(choices) for _ in range(rng.choice((1, 1, 2)))]
        elif kind == "place":
            filled = [rng.choice(lexicon.PLACES if real else names)]
            if not real and rng.random() < 0.15:
                filled = [rng.choice(("Lake", "Mount", "Port", "New", "Upper")), *filled]
        elif kind == "year":
            first = 1950 if rng.random() < _RECENT_RATIO else 1100
            filled = [str(rng.randint(first, 2030))]
        elif kind in _OPEN and rng.random() < _INVENTED_RATIO:
            filled = [rng.choice(names).lower()]
        else:
            filled = rng.choice(_LISTS[kind]).split()
        if tuple(filled) != other_than:
            return filled


@dataclass(frozen=True)
class Style:
    """How a text is written: its first letter, its names, and whether it ends with "?"."""

    capital: bool
    names: bool
    mark: bool


def draw_style(rng: random.Random) -> Style:
    """As written text, or as a speech recognizer prints it: in lower case, without "?"."""
    if rng.random() < 0.45:
        return Style(capital=True, names=True, mark=rng.random() < 0.9)
    return Style(capital=False, names=rng.random() < 0.25, mark=rng.random() < 0.15)


def finish(words: list[str], style: Style) -> str:
    """Join words to a text of that style."""
    said = words if style.mark else [word for word in words if word != "?"]
    if not style.names:
        said = [word.lower() for word in said]
    elif not style.capital:
        said = [word.lower() if word in lexicon.OPENERS else word for word in said]
    text = " ".join(said).replace(" ?", "?")
    return text[0].upper() + text[1:] if style.capital else text
