"""How to generate: the options of transformers' GenerationConfig that the engines know."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name


@dataclass(frozen=True)
class GenerationOptions:
    """Options of one generation; the names and meanings are GenerationConfig's.

    `num_beams` 1 without `do_sample` is greedy search. `top_k` 0 and `top_p` 1.0 switch the filter
    off. `seed` makes sampling repeatable within one engine. `stop_strings` end a text before the
    first of them. `prompt_lookup_num_tokens` is the longest draft taken from the input in plain
    greedy search of one row, 0 for none: it changes how fast an answer comes, never the answer, and
    engines that can't draft pass it over.
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

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        def whole(name: str, low: int, high: int) -> str | None:
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                return f"{name} must be a whole number from {low} to {high}, not {value!r}"
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
                return f"{name} must be a number {least} {low} and at most {high}, not {value!r}"
            return None

        checks = [
            whole("max_new_tokens", 1, 1 << 16),
            whole("min_new_tokens", 0, 1 << 16),
            whole("num_beams", 1, 64),
            whole("num_return_sequences", 1, 64),
            whole("top_k", 0, 1 << 20),
            whole("no_repeat_ngram_size", 0, 1 << 10),
            whole("prompt_lookup_num_tokens", 0, 64),
            real("length_penalty", -10, 10, open_low=False),
            real("temperature", 0, 100, open_low=True),
            real("top_p", 0, 1, open_low=True),
            real("repetition_penalty", 0, 100, open_low=True),
        ]
        yield from filter(None, checks)
        if not any(checks):
            if self.min_new_tokens > self.max_new_tokens:
                yield (
                    f"min_new_tokens ({self.min_new_tokens}) is larger than max_new_tokens"
                    f" ({self.max_new_tokens})"
                )
            if self.do_sample and self.num_beams > 1:
                yield "do_sample with num_beams above 1 is not offered; choose one of them"
            if not self.do_sample and self.num_return_sequences > self.num_beams:
                yield "num_return_sequences above num_beams needs do_sample"
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 1 << 32):
            yield f"seed must be a whole number from 0 to 2**32-1, not {self.seed!r}"
        if not all(isinstance(text, str) and text for text in self.stop_strings):
            yield "stop_strings must be non-empty texts"

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the best token of the model's own distribution is taken at every step."""
        return (
            self.num_beams == 1
            and not self.do_sample
            and self.repetition_penalty == 1.0
            and self.no_repeat_ngram_size == 0
        )

    def override(self, values: Mapping[str, Any]) -> GenerationOptions:
        """These options with some replaced; None leaves one as it is. `stop` is `stop_strings`.

        Raises:
            UsageError: an unknown name (with the one that was probably meant) or a bad value.
        """
        known = {item.name for item in dataclasses.fields(self)}
        changes: dict[str, Any] = {}
        for given, value in values.items():
            name = "stop_strings" if given == "stop" else given
            if name not in known:
                raise UsageError(unknown_name("generation option", given, tuple(sorted(known))))
            if value is None:
                continue
            if name == "stop_strings":
                value = (value,) if isinstance(value, str) else tuple(value)
            changes[name] = value
        # A cap given alone lowers an artifact's default minimum, and the other way round.
        if "max_new_tokens" in changes and "min_new_tokens" not in changes:
            cap = changes["max_new_tokens"]
            if isinstance(cap, int):
                changes["min_new_tokens"] = max(0, min(self.min_new_tokens, cap))
        return dataclasses.replace(self, **changes)

    def non_default(self) -> dict[str, Any]:
        """The options that differ from the defaults, as a manifest stores them."""
        plain = GenerationOptions()
        return {
            item.name: list(value) if isinstance(value, tuple) else value
            for item in dataclasses.fields(self)
            if (value := getattr(self, item.name)) != getattr(plain, item.name)
        }
