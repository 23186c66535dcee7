"""Word lists of the synthetic questions: markers, fillers, nouns, verbs and real names."""

from __future__ import annotations

# Said between the wrong words and the right ones.
MARKERS = [
    marker.split()
    for marker in (
        "no wait", "no", "sorry", "no sorry", "I mean", "no I mean", "or wait", "actually no",
        "or rather", "oh sorry", "scratch that", "make that", "hang on", "wait", "wait no", "uh no",
        "um sorry", "uh I mean", "or actually", "sorry I mean",
    )
]  # fmt: skip
FILLERS = [
    filler.split()
    for filler in (
        "uh", "um", "er", "uh", "um", "you know", "hmm", "like", "erm", "well", "let me see",
    )
]  # fmt: skip
# Said between words and their repetition, where they mark nothing by themselves.
PAUSES = [
    pause.split()
    for pause in (
        "uh", "um", "er", "erm", "uh", "um", "you know", "well", "hmm", "like",
    )
]  # fmt: skip
# Said before a question only.
OPENING_FILLERS = [
    filler.split()
    for filler in (
        "okay so", "so", "um so", "so um", "well", "okay", "uh", "um", "so uh", "hmm", "er",
    )
]  # fmt: skip
OPENERS = frozenset(
    (
        "What", "Who", "When", "Where", "Which", "How", "Why", "In", "At", "For", "From", "Did",
        "Is", "Was", "By", "Can", "Could", "Does", "Do", "Are", "Will", "Were", "Has",
    )
)  # fmt: skip
# Words before a slot that are often repeated with it.
RETRACED = frozenset(
    (
        "the", "of", "in", "to", "from", "for", "by", "with", "near", "a", "on", "about", "at",
        "is", "was", "did", "does",
    )
)  # fmt: skip

ROLES = (
    "mayor", "governor", "founder", "chief engineer", "president", "first king", "last queen",
    "leading surgeon", "head librarian", "director", "owner", "captain", "treasurer", "king",
    "ambassador", "harbour master", "chief editor", "bishop", "court painter", "prime minister",
    "queen", "first president", "author", "head coach", "inventor", "manager", "chairman",
)  # fmt: skip
THINGS = (
    "bridge", "stone tower", "railway station", "cathedral", "old library", "harbour", "canal",
    "city wall", "opera house", "power plant", "lighthouse", "royal garden", "museum", "market",
    "university", "northern gate", "observatory", "water mill", "parliament", "steel factory",
    "tower", "castle", "church", "library", "hospital", "school", "airport", "palace", "theatre",
    "station", "post office", "town hall", "stadium", "temple", "hotel", "pharmacy", "bank",
    "swimming pool", "zoo", "park", "dam", "tunnel", "pyramid", "monument", "bakery", "office",
    "river", "lake", "sea", "ocean", "mountain", "island", "forest", "desert", "valley", "beach",
    "sun", "moon", "earth", "sky", "star", "storm", "snow", "country", "city", "village", "street",
    "house", "garden", "kitchen", "door", "window", "roof", "car", "ship", "engine", "wheel",
    "computer", "machine", "clock", "telescope", "piano", "painting", "statue", "flag", "coin",
    "person", "woman", "child", "dog", "cat", "horse", "bird", "fish", "lion", "elephant", "tree",
    "flower", "apple", "bread", "cheese", "coffee", "salt", "gold", "team", "company", "army",
)  # fmt: skip
TOPICS = (
    "population", "annual rainfall", "main export", "official language", "climate", "currency",
    "oldest school", "largest industry", "national anthem", "average income", "economy",
    "religion", "legal system", "coat of arms", "longest river", "highest mountain", "history",
    "postal code", "local cuisine", "system of government", "capital", "capital city", "area",
    "largest city", "flag", "national dish", "name", "location", "age", "size", "motto",
)  # fmt: skip
PAST_VERBS = (
    "build", "destroy", "visit", "buy", "paint", "restore", "sell", "describe", "leave",
    "rebuild", "photograph", "design", "inspect", "finance", "conquer", "inherit", "invent",
    "open", "close", "discover", "find", "lose", "repair", "move",
)  # fmt: skip
PARTICIPLES = (
    "built", "destroyed", "opened", "restored", "sold", "described", "closed", "rebuilt",
    "designed", "financed", "conquered", "flooded", "named", "discovered", "photographed", "made",
    "invented", "painted", "repaired", "found", "renamed", "visited", "moved", "finished",
)  # fmt: skip
ADJECTIVES = (
    "cold", "rich", "famous", "crowded", "isolated", "powerful", "unusual", "dangerous",
    "popular", "important", "expensive", "fertile", "dry", "controversial", "difficult", "old",
    "big", "tall", "long", "high", "deep", "heavy", "hot", "safe", "busy", "wide", "large",
)  # fmt: skip
GROUPS = (
    "farmers", "merchants", "soldiers", "scientists", "students", "settlers", "pilgrims",
    "fishermen", "miners", "journalists", "nurses", "sailors", "monks", "engineers", "teachers",
    "people", "tourists", "children", "workers", "visitors", "doctors", "players", "families",
    "dogs", "cats", "birds", "lions", "bears", "whales", "bees", "trees", "planets", "friends",
)  # fmt: skip
SUBJECTS = (
    "geology", "chemistry", "trade", "medicine", "astronomy", "farming", "music", "navigation",
    "printing", "mathematics", "shipbuilding", "philosophy", "law", "botany", "poetry", "mining",
    "history", "physics", "biology", "art", "cooking", "football", "gravity", "electricity",
)  # fmt: skip
SEASONS = (
    "the spring", "the winter", "the civil war", "the long drought", "the industrial revolution",
    "the harvest", "the great fire", "the election", "the siege", "the last ice age",
    "the summer", "the second world war", "the holidays", "the night",
)  # fmt: skip
ITEMS = (
    "ticket", "bicycle", "phone", "passport", "visa", "coat", "camera", "suitcase", "battery",
    "lamp", "newspaper", "sandwich", "key", "guitar", "boat", "tent", "chair", "laptop", "stamp",
    "map", "password", "license", "blanket", "radio", "bottle of water", "cup of coffee",
)  # fmt: skip
VEHICLES = (
    "train", "bus", "ferry", "plane", "tram", "night train", "flight", "boat", "last bus",
    "first train", "airport bus", "express train", "shuttle",
)  # fmt: skip
DAYS = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "weekends",
    "new year", "holidays",
)  # fmt: skip
EVENTS = (
    "world cup", "election", "war", "marathon", "festival", "final", "race", "tournament",
    "revolution", "meeting", "concert", "conference", "earthquake", "strike", "parade", "battle",
)  # fmt: skip
SUPERLATIVES = (
    "oldest", "largest", "smallest", "cheapest", "best", "highest", "biggest", "longest",
    "shortest", "fastest", "newest", "most famous", "most expensive", "second largest", "nearest",
)  # fmt: skip
WORKS = (
    "book", "song", "letter", "novel", "report", "play", "poem", "film", "speech", "article",
    "first chapter", "constitution", "symphony", "national anthem",
)  # fmt: skip
PLACES = (
    "France", "Germany", "Italy", "Spain", "Portugal", "England", "Scotland", "Ireland", "Norway",
    "Sweden", "Finland", "Denmark", "Poland", "Austria", "Greece", "Turkey", "Russia", "China",
    "Japan", "India", "Egypt", "Kenya", "Brazil", "Mexico", "Canada", "Australia", "London",
    "Paris", "Berlin", "Madrid", "Rome", "Vienna", "Prague", "Dublin", "Boston", "Chicago",
    "Texas", "Florida", "California", "Europe", "Africa", "Asia",
)  # fmt: skip
PEOPLE = (
    "Anna", "Maria", "Peter", "John", "James", "Mary", "Elizabeth", "Charles", "William", "Henry",
    "Robert", "Thomas", "George", "David", "Paul", "Sarah", "Emma", "Alice", "Smith", "Johnson",
    "Brown", "Miller", "Wilson", "Taylor", "Newton", "Darwin", "Mozart", "Lincoln", "Martin",
)  # fmt: skip
