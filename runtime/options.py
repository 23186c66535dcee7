"""Generation options: the part of transformers' `GenerationConfig` that the engines support."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.runtime.constraint_options import KINDS, constraint_problems, json_text
from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name

_SMALLEST = 1e-6  # float32 logits divided by much less overflow
MAX_DRAFT_TOKENS = 64  # of a draft from the input
MAX_STOP_STRINGS = 64  # each is searched for after every token
MAX_STOP_CHARS = 1000
_TEXTS = ("stop_strings", "choices", "copy_allow")


@dataclass(frozen=True)
class GenerationOptions:
    """Options of one generation, with the names and meanings of `GenerationConfig`.

    Attributes:
        max_new_tokens: Most tokens of an answer, eos included.
        min_new_tokens: Fewest tokens of an answer, eos included.
        num_beams: Number of beams. 1 without `do_sample` is greedy search.
        num_return_sequences: Number of answers per input; the best comes first.
        length_penalty: Exponent of the length that divides a hypothesis' score.
        early_stopping: End beam search as soon as `num_beams` hypotheses are finished.
        do_sample: Sample instead of taking the best token.
        temperature: Divides the logits before sampling.
        top_k: Sample among this many best tokens; 0 for no limit.
        top_p: Sample among the fewest tokens that reach this probability; 1.0 for no limit.
        repetition_penalty: Divides the logits of tokens generated before; 1.0 for none.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 for no limit.
        prompt_lookup_num_tokens: Longest draft taken from the input in greedy search of one row;
            0 for none. It changes the speed, never the answer. Engines without drafts ignore it.
        seed: Makes sampling reproducible within one engine.
        stop_strings: An answer ends before the first of these strings.
        choices: The answer is one of these texts.
        regex: The answer matches this regular expression (of Rust's regex crate) as a whole.
        json_schema: The answer is JSON of this JSON Schema: a mapping, or its JSON text.
        grammar: The answer is accepted by this Lark grammar.
        copy_only: The answer consists of words and signs of the input.
        copy_allow: With copy_only, also of words and signs of these texts.

    Raises:
        UsageError: Invalid values; the message lists all of them.
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    prompt_lookup_num_tokens: int = 0
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    regex: str | None = None
    json_schema: str | None = None
    grammar: str | None = None
    copy_only: bool = False
    copy_allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "json_schema", json_text(self.json_schema))
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        def whole(name: str, low: int, high: int) -> str | None:
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                return f"{name} must be a whole number from {low} to {high}, not {value!r:.80}"
            return None

        def real(name: str, low: float, high: float, *, open_low: bool) -> str | None:
            value = getattr(self, name)
            if (
                type(value) not in (int, float)
                or not math.isfinite(value)
                or value > high
                or value < low
                or (open_low and value == low)
            ):
                least = "above" if open_low else "at least"
                return (
                    f"{name} must be a number {least} {low} and at most {high}, not {value!r:.80}"
                )
            return None

        checks = [
            whole("max_new_tokens", 1, 1 << 16),
            whole("min_new_tokens", 0, 1 << 16),
            whole("num_beams", 1, 64),
            whole("num_return_sequences", 1, 64),
            whole("top_k", 0, 1 << 20),
            whole("no_repeat_ngram_size", 0, 1 << 10),
            whole("prompt_lookup_num_tokens", 0, MAX_DRAFT_TOKENS),
            real("length_penalty", -10, 10, open_low=False),
            real("temperature", _SMALLEST, 100, open_low=False),
            real("top_p", _SMALLEST, 1, open_low=False),
            real("repetition_penalty", _SMALLEST, 100, open_low=False),
        ]
        yield from filter(None, checks)
        for name in ("early_stopping", "do_sample"):
            if type(getattr(self, name)) is not bool:
                yield f"{name} must be true or false, not {getattr(self, name)!r:.80}"
        if not any(checks):
            if self.min_new_tokens > self.max_new_tokens:
                yield (
                    f"min_new_tokens ({self.min_new_tokens}) is larger than max_new_tokens"
                    f" ({self.max_new_tokens})"
                )
            if self.do_sample and self.num_beams > 1:
                yield "do_sample with num_beams above 1 is not supported; use one of them"
            if not self.do_sample and self.num_return_sequences > self.num_beams:
                yield "num_return_sequences above num_beams needs do_sample"
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 1 << 32):
            yield f"seed must be a whole number from 0 to 2**32-1, not {self.seed!r:.80}"
        if not isinstance(self.stop_strings, tuple) or not all(
            isinstance(text, str) and text for text in self.stop_strings
        ):
            yield "stop_strings must be non-empty strings"
        elif (
            len(self.stop_strings) > MAX_STOP_STRINGS
            or max(map(len, self.stop_strings), default=0) > MAX_STOP_CHARS
        ):
            yield (
                f"stop_strings must be at most {MAX_STOP_STRINGS} strings of at most"
                f" {MAX_STOP_CHARS} characters"
            )
        yield from constraint_problems(
            self.choices,
            self.regex,
            self.json_schema,
            self.grammar,
            self.copy_only,
            self.copy_allow,
        )

    @property
    def constraint(self) -> tuple[str, object, tuple[str, ...]] | None:
        """The kind of the constraint, its value, and what copies may use; None without one."""
        for name in KINDS:
            value = getattr(self, name)
            if value is not None and value is not False:
                return name, value, self.copy_allow
        return None

    @property
    def is_plain_greedy(self) -> bool:
        """Whether every step takes the best token of the model's unmodified distribution."""
        return (
            self.num_beams == 1
            and not self.do_sample
            and self.repetition_penalty == 1.0
            and self.no_repeat_ngram_size == 0
        )

    @property
    def drafts_from_input(self) -> bool:
        """Whether greedy search may draft tokens from the input."""
        return self.prompt_lookup_num_tokens > 0 and self.num_beams == 1 and not self.do_sample

    def override(self, values: Mapping[str, Any]) -> GenerationOptions:
        """A copy with some options replaced.

        Args:
            values: New values by name. None keeps the current value; `stop` is an alias of
                `stop_strings`. Lowering `max_new_tokens` alone also lowers `min_new_tokens`.

        Raises:
            UsageError: An unknown name or an invalid value.
        """
        known = {item.name for item in dataclasses.fields(self)}
        changes: dict[str, Any] = {}
        for given, value in values.items():
            name = "stop_strings" if given == "stop" else given
            if name not in known:
                raise UsageError(unknown_name("generation option", given, tuple(sorted(known))))
            if value is None:
                continue
            if name in _TEXTS:
                value = (value,) if isinstance(value, str) else value
                value = tuple(value) if isinstance(value, list | set | frozenset) else value
            changes[name] = value
        if "max_new_tokens" in changes and "min_new_tokens" not in changes:
            limit = changes["max_new_tokens"]
            if isinstance(limit, int):
                changes["min_new_tokens"] = max(0, min(self.min_new_tokens, limit))
        return dataclasses.replace(self, **changes)

    def non_default(self) -> dict[str, Any]:
        """The options that differ from `GenerationOptions()`, as stored in a manifest."""
        defaults = GenerationOptions()
        return {
            item.name: list(value) if isinstance(value, tuple) else value
            for item in dataclasses.fields(self)
            if (value := getattr(self, item.name)) != getattr(defaults, item.name)
        }
