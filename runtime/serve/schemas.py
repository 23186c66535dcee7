"""The bodies that requests bring: OpenAI's names, and beside them those of the runtime."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.runtime.guardrails import OnLong
from edge.runtime.serve.errors import ApiError

_MOST_TEXTS = 256
_MOST_STOPS = 16

Texts = str | list[str]


class Options(BaseModel):
    """The runtime's own options, for any route: `GenerationOptions` has their meaning."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    fields: dict[str, str] | None = None
    on_long: OnLong | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    prompt_lookup_num_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    def generation(self) -> dict[str, Any]:
        """The options that were given, under the runtime's names."""
        chosen = self.model_dump(exclude_none=True, include=_GENERATION)
        if isinstance(self.stop, list):
            if len(self.stop) > _MOST_STOPS:
                raise ApiError(400, "invalid_value", f"at most {_MOST_STOPS} texts", param="stop")
            if not self.stop:
                del chosen["stop"]
        if "seed" in chosen:
            chosen["seed"] %= 1 << 32  # OpenAI's seeds have 64 bits
        return chosen


_GENERATION = set(Options.model_fields) - {"model", "fields", "on_long"}


class GenerateRequest(Options):
    """`/v1/generate`."""

    input: Texts
    num_return_sequences: int | None = None

    def generation(self) -> dict[str, Any]:
        chosen = super().generation()
        if self.num_return_sequences is not None:
            chosen["num_return_sequences"] = self.num_return_sequences
        return chosen


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False


# OpenAI's options that this service can't honor, each with the values that ask for nothing.
_NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
# And those that change no answer here.
_PASSED_OVER = (
    "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user",
    "verbosity",
)  # fmt: skip


class OpenAIRequest(Options):
    """What completions and chat completions share."""

    max_tokens: int | None = None
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    audio: Any = None
    best_of: Any = None
    echo: Any = None
    frequency_penalty: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    metadata: Any = None
    modalities: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    prompt_cache_key: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    suffix: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    user: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    def generation(self) -> dict[str, Any]:
        """The options in the runtime's words. A temperature above 0 asks for sampling, as OpenAI's
        does; without one the artifact's defaults hold.

        Raises:
            ApiError: an option that this service can't honor.
        """
        for name, neutral in _NOT_OFFERED.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise ApiError(400, "unsupported_parameter", f"{name} is not offered", param=name)
        chosen = super().generation()
        if self.max_tokens is not None:
            chosen.setdefault("max_new_tokens", self.max_tokens)
        if self.n != 1:
            chosen["num_return_sequences"] = self.n
        if chosen.get("temperature") == 0:
            del chosen["temperature"]
            chosen.setdefault("do_sample", False)
        elif {"temperature", "top_p"} & set(chosen) and "num_beams" not in chosen:
            chosen.setdefault("do_sample", True)
            chosen["num_beams"] = 1
        return chosen


class CompletionRequest(OpenAIRequest):
    """`/v1/completions`."""

    prompt: Texts


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of a chat; further keys (name, refusal, …) change nothing here."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The message's text.

        Raises:
            ApiError: it holds something else, such as an image.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise ApiError(
                    400,
                    "unsupported_parameter",
                    f"content of type {part.type[:40]!r} is not offered, only text",
                    param="messages",
                )
        return "\n".join(part.text or "" for part in self.content)


class ChatRequest(OpenAIRequest):
    """`/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = None

    def generation(self) -> dict[str, Any]:
        if self.max_tokens is None:
            self.max_tokens = self.max_completion_tokens
        return super().generation()

    def text(self, mode: str) -> str:
        """What the model reads: the last user message, or all messages, one a line.

        Raises:
            ApiError: no message of a user.
        """
        if mode == "conversation":
            return "\n".join(f"{message.role}: {message.text}" for message in self.messages)
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        raise ApiError(400, "invalid_value", "messages hold none of a user", param="messages")


def texts_of(value: Texts, param: str) -> list[str]:
    """One text or several as a list.

    Raises:
        ApiError: none, or too many.
    """
    texts = [value] if isinstance(value, str) else value
    if not 1 <= len(texts) <= _MOST_TEXTS:
        raise ApiError(400, "invalid_value", f"from 1 to {_MOST_TEXTS} texts", param=param)
    return texts
