"""Request bodies: OpenAI's parameters, plus the runtime's generation options."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.runtime.guardrails import OnLong
from edge.runtime.serve.errors import ApiError

_MAX_TEXTS = 256
_MAX_STOP_STRINGS = 16

Texts = str | list[str]


class RequestOptions(BaseModel):
    """Options of every route. `edge.runtime.options.GenerationOptions` describes them."""

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
    choices: list[str] | None = None
    regex: str | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    copy_only: bool | None = None
    copy_allow: list[str] | None = None

    def generate_kwargs(self) -> dict[str, Any]:
        """The options that were given, as keyword arguments of `Model.generate`.

        Raises:
            ApiError: Too many stop strings.
        """
        chosen = self.model_dump(exclude_none=True, include=_GENERATION)
        if isinstance(self.stop, list):
            if len(self.stop) > _MAX_STOP_STRINGS:
                raise ApiError(
                    400, "invalid_value", f"at most {_MAX_STOP_STRINGS} stop strings", param="stop"
                )
            if not self.stop:
                del chosen["stop"]
        if "seed" in chosen:
            chosen["seed"] %= 1 << 32  # OpenAI allows 64 bits
        return chosen


_GENERATION = set(RequestOptions.model_fields) - {"model", "fields", "on_long"}


class GenerateRequest(RequestOptions):
    """Body of `/v1/generate`."""

    input: Texts
    num_return_sequences: int | None = None

    def generate_kwargs(self) -> dict[str, Any]:
        """See `RequestOptions.generate_kwargs`."""
        chosen = super().generate_kwargs()
        if self.num_return_sequences is not None:
            chosen["num_return_sequences"] = self.num_return_sequences
        return chosen


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False


# OpenAI's parameters without support here, each with the values that have no effect.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
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
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}


class OpenAIRequest(RequestOptions):
    """Parameters that completions and chat completions share.

    Those that are neither supported nor in `_UNSUPPORTED`, such as `user`, are ignored.
    """

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

    def generate_kwargs(self) -> dict[str, Any]:
        """The options that were given, as keyword arguments of `Model.generate`.

        As in OpenAI's API, a temperature above 0 samples. Without one the artifact's defaults
        apply.

        Raises:
            ApiError: An unsupported parameter.
        """
        for name, neutral in _UNSUPPORTED.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise ApiError(400, "unsupported_parameter", f"{name} is not supported", param=name)
        chosen = super().generate_kwargs()
        if self.response_format is not None:
            chosen |= _response_format(self.response_format)
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


def _response_format(value: Any) -> dict[str, Any]:
    """The constraint of OpenAI's `response_format`, as keyword arguments of `Model.generate`.

    Raises:
        ApiError: An unknown form.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    wrapper = value.get("json_schema") if kind == "json_schema" else None
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if isinstance(schema, dict):
        return {"json_schema": schema}
    raise ApiError(
        400,
        "invalid_value",
        'response_format must be {"type": "text"}, {"type": "json_object"} or {"type":'
        ' "json_schema", "json_schema": {"schema": {…}}}',
        param="response_format",
    )


class CompletionRequest(OpenAIRequest):
    """Body of `/v1/completions`."""

    prompt: Texts


class ContentPart(BaseModel):
    """One part of a message's content. Only text is supported."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of a chat. Other keys, such as `name` and `refusal`, are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The message's text.

        Raises:
            ApiError: It holds something else, such as an image.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise ApiError(
                    400,
                    "unsupported_parameter",
                    f"content of type {part.type[:40]!r} is not supported; only text is",
                    param="messages",
                )
        return "\n".join(part.text or "" for part in self.content)


class ChatRequest(OpenAIRequest):
    """Body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = None

    def generate_kwargs(self) -> dict[str, Any]:
        """See `OpenAIRequest.generate_kwargs`."""
        if self.max_tokens is None:
            self.max_tokens = self.max_completion_tokens
        return super().generate_kwargs()

    def text(self, mode: str) -> str:
        """The model's input: the last user message, or with mode "conversation" all messages.

        Raises:
            ApiError: There is no user message.
        """
        if mode == "conversation":
            return "\n".join(f"{message.role}: {message.text}" for message in self.messages)
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        raise ApiError(
            400, "invalid_value", "messages must contain a user message", param="messages"
        )


def as_text_list(value: Texts, param: str) -> list[str]:
    """One text or several as a list.

    Raises:
        ApiError: There are none or too many.
    """
    texts = [value] if isinstance(value, str) else value
    if not 1 <= len(texts) <= _MAX_TEXTS:
        raise ApiError(
            400,
            "invalid_value",
            f"{param} must be a text or a list of 1 to {_MAX_TEXTS} texts",
            param=param,
        )
    return texts
