"""Guardrails: input and output limits, output checks and careful decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.runtime.artifact.manifest import Limits
from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name
from edge.runtime.rows import Prompt

OnLong = Literal["error", "truncate", "chunk", "fallback"]
ON_LONG: tuple[str, ...] = get_args(OnLong)
# Returns what is wrong with an answer's text, or None.
OutputCheck = Callable[[str], str | None]
# Makes the answer to an input that is too long.
Fallback = Callable[[str], str]
FALLBACKS: dict[str, Fallback] = {"echo": lambda text: text, "empty": lambda text: ""}

# With beam search where the engine has it, else sampling close to the best token.
_CONSERVATIVE: dict[str, Any] = {
    "temperature": 0.2,
    "top_p": 0.9,
    "top_k": 50,
    "repetition_penalty": 1.1,
}
PROFILES = ("conservative",)


@dataclass(frozen=True)
class Guardrails:
    """Limits and checks around one model; see docs/guardrails.md.

    Args:
        max_input_tokens: Lower input limit than the artifact's, in tokens; None keeps that.
        max_new_tokens: Lower output limit than the artifact's, in tokens; None keeps that.
        on_long: What to do with an input over the limit: "error", "truncate", "chunk" (split at
            sentence ends, answer each part, join the answers) or "fallback".
        fallback: The answer for on_long "fallback": a function of the text, "echo" (the text
            itself) or "empty".
        max_parts: "chunk" rejects an input that needs more parts.
        enforce_prefix: An input that already starts with the prompt's prefix gets it only once.
        output: Check of each answer: `RegexOutput`, `JsonOutput`, or a function that returns what
            is wrong or None. An answer that fails is decoded once more, with more candidates; if
            none passes, an `OutputError` is raised. Alternatives that fail are left out.
        profile: "conservative" makes careful decoding the default.

    Raises:
        UsageError: An invalid value.
    """

    max_input_tokens: int | None = None
    max_new_tokens: int | None = None
    on_long: OnLong = "error"
    fallback: Fallback | str | None = None
    max_parts: int = 64
    enforce_prefix: bool = True
    output: OutputCheck | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        check_on_long(self.on_long)
        for name in ("max_input_tokens", "max_new_tokens", "max_parts"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if isinstance(self.fallback, str) and self.fallback not in FALLBACKS:
            raise UsageError(unknown_name("fallback", self.fallback, tuple(FALLBACKS)))
        if self.on_long == "fallback" and self.fallback is None:
            raise UsageError(
                "on_long 'fallback' needs a fallback: a function of the text, 'echo' or 'empty'"
            )
        if self.profile is not None and self.profile not in PROFILES:
            raise UsageError(unknown_name("profile", self.profile, PROFILES))

    def limits(self, artifact: Limits) -> Limits:
        """The lower of the artifact's limits and these."""
        return Limits(
            max_input_tokens=min(artifact.max_input_tokens, self.max_input_tokens or 1 << 30),
            max_new_tokens=min(artifact.max_new_tokens, self.max_new_tokens or 1 << 30),
        )

    def fall_back(self, text: str) -> str:
        """The fallback answer to a text.

        Raises:
            UsageError: No fallback was set.
        """
        if self.fallback is None:
            raise UsageError("no fallback is set; load the model with Guardrails(fallback=…)")
        rule = FALLBACKS[self.fallback] if isinstance(self.fallback, str) else self.fallback
        return rule(text)


def check_on_long(on_long: str) -> None:
    """Check a value of `on_long`.

    Raises:
        UsageError: It is unknown.
    """
    if on_long not in ON_LONG:
        raise UsageError(f"on_long must be one of {', '.join(ON_LONG)}, not {on_long!r}")


def profile_options(profile: str | None, *, beams: bool) -> dict[str, Any]:
    """Generation options of a profile, for an engine with or without beam search."""
    if profile is None:
        return {}
    if beams:
        return {**_CONSERVATIVE, "num_beams": 3, "do_sample": False}
    return {**_CONSERVATIVE, "num_beams": 1, "do_sample": True}


def without_prefix(text: str, prompt: Prompt, fields: Mapping[str, object]) -> str:
    """The text without the prompt's prefix, if it starts with it."""
    head, found, _ = prompt.template.partition("{input}")
    if not found or not head.strip():
        return text
    prefix = Prompt(head).apply("", fields)
    stripped = text.lstrip()
    return stripped[len(prefix) :] if prefix.strip() and stripped.startswith(prefix) else text
