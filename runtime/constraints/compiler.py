"""Constraints of one model, compiled from generation options and kept for later calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from edge.runtime.constraints.automaton import USER_GRAMMAR, Automaton
from edge.runtime.constraints.choices import Choices
from edge.runtime.constraints.constraint import Constraint
from edge.runtime.constraints.grammars import (
    copy_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
)
from edge.runtime.constraints.vocabulary import TextVocabulary, import_llguidance
from edge.runtime.engines.base import Vocabulary
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.json_file import parse_json
from edge.runtime.text.tokenization import Tokenizer

_KEPT = 16


class ConstraintCompiler:
    """Compiles constraints, each once. Safe to use from several threads.

    Args:
        tokenizer: The artifact's tokenizer.
        vocabulary: Special ids, and ids that may be emitted.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._vocabulary = TextVocabulary(tokenizer, vocabulary)
        self._kept: OrderedDict[object, Constraint] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, options: GenerationOptions) -> Constraint | None:
        """The constraint of these options, or None if they have none.

        Raises:
            UsageError: It is invalid, too large, or nothing that the model can write fits it.
            MissingExtraError: llguidance is not installed.
        """
        key = options.constraint
        if key is None:
            return None
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            found = self._compile(options)
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        found.check_length(options.max_new_tokens)
        return found

    def _compile(self, options: GenerationOptions) -> Constraint:
        vocabulary = self._vocabulary
        if options.choices is not None:
            return Choices(options.choices, vocabulary)
        if options.regex is not None:
            grammar, name = regex_grammar(options.regex, vocabulary), "the regular expression"
        elif options.json_schema is not None:
            schema = parse_json(options.json_schema)
            grammar, name = json_grammar(schema, vocabulary), "the JSON Schema"
        elif options.grammar is not None:
            grammar, name = lark_grammar(options.grammar), USER_GRAMMAR
        else:
            return _Copies(options.copy_allow, vocabulary)
        return Automaton(grammar, vocabulary, name=name)


class _Copies(Constraint):
    """Only words and signs of the input, and of the allowed texts."""

    def __init__(self, allow: Sequence[str], vocabulary: TextVocabulary) -> None:
        import_llguidance()
        self._allow = allow
        self._vocabulary = vocabulary
        for text in allow:
            if missing := vocabulary.unwritable(text):
                raise UsageError(
                    f"this model can't write {text!r:.80} of copy_allow: its vocabulary has no"
                    f" {missing!r:.80}; extend it with edge train --vocabulary extend"
                )

    def matcher(self, input_ids: Sequence[int]) -> Matcher:
        """See `Constraint.matcher`."""
        [text] = self._vocabulary.tokenizer.decode([input_ids])
        grammar = copy_grammar([text, *self._allow])
        name = "copy_only with this input"
        return Automaton(grammar, self._vocabulary, name=name).matcher(input_ids)

    def check_length(self, max_new_tokens: int) -> None:
        """See `Constraint.check_length`. Any number of words fits."""

    def text(self, ids: Sequence[int]) -> str:
        """See `Constraint.text`."""
        return self._vocabulary.texts.join(tuple(ids)).decode(errors="replace")
