"""A constraint as an automaton over text, by llguidance."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from edge.runtime.constraints.constraint import Constraint
from edge.runtime.constraints.vocabulary import END, NEVER, TextVocabulary, import_llguidance
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import ConstraintError, UsageError, library_errors, one_line

# Work is counted, so that neither compiling nor a step can take long: about 50,000 units of the
# first, 14,000 of the second and 20,000 of the third take a millisecond; a state has 1 to 2 kB.
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 500_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_items_in_row": 2_000,
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
USER_GRAMMAR = "the grammar"  # name of a grammar that the caller wrote
_SHOWN = re.compile(r" *\d+ \| ")  # a line of the grammar, below an error
_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_NO_TOKEN = "NoExtensionBias"  # how llguidance's error begins where no token can follow


class Automaton(Constraint):
    """An answer that a grammar accepts.

    Args:
        grammar: The grammar, in llguidance's Lark syntax.
        vocabulary: The model's tokens.
        name: What the constraint is, for messages: "the regular expression".

    Raises:
        UsageError: The grammar is invalid or too large, or nothing that the model can write fits.
        MissingExtraError: llguidance is not installed.
    """

    def __init__(self, grammar: str, vocabulary: TextVocabulary, *, name: str) -> None:
        library = import_llguidance()
        self.name = name
        self.vocabulary = vocabulary
        with library_errors(UsageError, name, "can't be compiled"):
            self._start = library.LLMatcher(
                vocabulary.automaton,
                grammar,
                log_level=0,
                limits=library.LLParserLimits(**_LIMITS),
            )
        if self._start.is_error():
            raise UsageError(f"{name} can't be used: {_problem(self._start.get_error(), name)}")
        # Computed once, and on a copy: matchers of other threads start from the original.
        first = AutomatonMatcher(self, self._start.deep_copy(), at_start=True)
        self._first = first.allowed()
        if not self._first.any():
            raise UsageError(
                f"nothing that this model can write fits {name}; change it, or extend the"
                " vocabulary with edge train --vocabulary extend"
            )

    def matcher(self, input_ids: Sequence[int]) -> Matcher:
        """See `Constraint.matcher`."""
        return AutomatonMatcher(self, self._start.deep_copy(), at_start=True, allowed=self._first)

    def check_length(self, max_new_tokens: int) -> None:
        """See `Constraint.check_length`. The shortest answer is not known."""

    def text(self, ids: Sequence[int]) -> str:
        """See `Constraint.text`."""
        return self.vocabulary.texts.join(tuple(ids)).decode(errors="replace")


class AutomatonMatcher(Matcher):
    """The state of an `Automaton` after the tokens of one answer."""

    def __init__(
        self,
        automaton: Automaton,
        state: Any,
        *,
        at_start: bool,
        text: bytes = b"",
        allowed: np.ndarray | None = None,
    ) -> None:
        self._automaton = automaton
        self._state = state
        self._at_start = at_start
        self._text = text
        self._allowed = allowed

    def allowed(self) -> np.ndarray:
        """See `Matcher.allowed`."""
        if self._allowed is None:
            self._allowed = self._compute()
        return self._allowed

    def _compute(self) -> np.ndarray:
        vocabulary = self._automaton.vocabulary
        # Before the mask: a state that no token can continue stops as an accepted one does.
        accepted = bool(self._state.is_accepting())
        symbols = self._symbols()
        allowed: np.ndarray = symbols[vocabulary.first if self._at_start else vocabulary.inner]
        if self._at_start and (accepted or symbols.any()):
            allowed[vocabulary.empty_first] = True
        allowed[vocabulary.silent_ends] = accepted
        for token, (first, inner) in vocabulary.text_ends.items():
            symbol = first if self._at_start else inner
            allowed[token] = symbols[symbol] and self._accepts_after(symbol)
        return allowed

    def _symbols(self) -> np.ndarray:
        """Which symbols may follow, as bools; those without text may not."""
        size = len(self._automaton.vocabulary.symbols) + END + 1
        if self._state.is_stopped():
            return np.zeros(size, dtype=np.bool_)
        packed = self._state.compute_bitmask()
        if self._state.is_error() and not self._state.get_error().startswith(_NO_TOKEN):
            raise self._too_complex()
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little", count=size)
        bits[NEVER] = bits[END] = 0
        return bits.view(np.bool_)

    def _accepts_after(self, symbol: int) -> bool:
        state = self._state.deep_copy()
        return bool(state.consume_token(symbol)) and bool(state.is_accepting())

    def advance(self, token: int) -> None:
        """See `Matcher.advance`."""
        vocabulary = self._automaton.vocabulary
        texts = vocabulary.texts
        symbol = int((vocabulary.first if self._at_start else vocabulary.inner)[token])
        self._text += (texts.first if self._at_start else texts.inner)[token] or b""
        self._at_start = False
        self._allowed = None
        if symbol != NEVER and not self._state.consume_token(symbol):
            raise self._too_complex()

    def copy(self) -> Self:
        """See `Matcher.copy`."""
        return type(self)(
            self._automaton,
            self._state.deep_copy(),
            at_start=self._at_start,
            text=self._text,
            allowed=self._allowed,
        )

    def dead_end(self) -> ConstraintError:
        """See `Matcher.dead_end`."""
        so_far = self._text.decode(errors="replace")[-40:]
        return ConstraintError(
            f"the answer can't go on after {so_far!r}: no token of this model fits"
            f" {self._automaton.name}; change it, or extend the vocabulary with edge train"
            " --vocabulary extend"
        )

    def _too_complex(self) -> ConstraintError:
        reason = _reason(self._state.get_error())
        return ConstraintError(f"{self._automaton.name} is too complex to follow: {reason}")


def _problem(message: str, name: str) -> str:
    """Why llguidance refuses a grammar, without the grammar that it shows below.

    The place counts only in a grammar of the caller, whose first line is the second.
    """
    lines = list(itertools.takewhile(lambda line: not _SHOWN.match(line), message.splitlines()))
    text = one_line("\n".join(line for line in lines if line.strip(" ^")), 200)
    place = _PLACE.match(text)
    if place is None:
        return text
    where = f"line {int(place[1]) - 1}, column {place[2]}: " if name == USER_GRAMMAR else ""
    return where + text[place.end() :].removeprefix("failed to compile JSON schema: ")


def _reason(message: str) -> str:
    return one_line(message, 200)
