"""Routes of OpenAI's API: /v1/models, /v1/completions and /v1/chat/completions.

Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from edge.runtime.errors import EdgeError
from edge.runtime.generation import Generation
from edge.runtime.serve.errors import ApiError, to_api_error
from edge.runtime.serve.pool import WorkerPool
from edge.runtime.serve.queued_request import QueuedRequest, RequestResult
from edge.runtime.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    OpenAIRequest,
    StreamOptions,
    as_text_list,
)
from edge.runtime.serve.service import Service


def finish_reason(answer: Generation) -> str:
    """OpenAI's name for how an answer ended: "length" or "stop"."""
    return "length" if answer.finish_reason == "length" else "stop"


def openai_router(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        return {
            "object": "list",
            "data": [_describe(pool, service) for pool in service.pools.values()],
        }

    @router.get("/models/{name:path}")
    async def show_model(name: str, request: Request) -> dict[str, Any]:
        return _describe(service.pool(name, request), service)

    @router.post("/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        texts = as_text_list(body.prompt, "prompt")
        return await _answer(service, body, texts, request, _Completion)

    @router.post("/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(
            service, body, [body.text(service.settings.chat)], request, _ChatCompletion
        )

    return router


def _describe(pool: WorkerPool, service: Service) -> dict[str, Any]:
    """A model as OpenAI describes it, with this service's additions under "edge"."""
    model = pool.model
    manifest = model.artifact.manifest
    try:
        created = int(datetime.fromisoformat(manifest.created).timestamp())
    except ValueError:
        created = 0
    return {
        "id": pool.name,
        "object": "model",
        "created": created,
        "owned_by": "edge",
        "edge": {
            "format": manifest.format,
            "quantization": manifest.quantization,
            "max_input_tokens": model.limits.max_input_tokens,
            "max_new_tokens": model.limits.max_new_tokens,
            "defaults": model.defaults.non_default(),
            "fields": list(model.prompt.fields),
            "beams": model.engine.supports_beams,
            "constraints": service.settings.allow_constraints and model.engine.supports_constraints,
            "on_long": model.guardrails.on_long,
            "chat": service.settings.chat,
            "target_ms": service.settings.target_ms,
            "threads": model.engine.threads,
            "workers": pool.workers,
            "max_batch": pool.max_batch,
        },
    }


# -- response formats ----------------------------------------------------------------------------


@dataclass
class _Completion:
    """Response format of /v1/completions."""

    model: str
    id_prefix = "cmpl"
    object_name, chunk_name = "text_completion", "text_completion"

    def __post_init__(self) -> None:
        self.id = f"{self.id_prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def envelope(self, object_name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text, "logprobs": None}

    def delta(self, text: str | None) -> dict[str, Any]:
        return {"text": text or "", "logprobs": None}

    def first_chunk(self) -> dict[str, Any] | None:
        return None

    def chunk(self, content: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return self.envelope(self.chunk_name, [{"index": 0, **content, "finish_reason": reason}])


class _ChatCompletion(_Completion):
    """Response format of /v1/chat/completions."""

    id_prefix = "chatcmpl"
    object_name, chunk_name = "chat.completion", "chat.completion.chunk"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}, "logprobs": None}

    def delta(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}, "logprobs": None}

    def first_chunk(self) -> dict[str, Any] | None:
        return self.chunk({"delta": {"role": "assistant", "content": ""}, "logprobs": None})


async def _answer(
    service: Service,
    body: OpenAIRequest,
    texts: list[str],
    request: Request,
    response_format: type[_Completion],
) -> Response:
    pool = service.pool(body.model, request)
    queued = service.submit(pool, body, texts, request, stream=body.stream)
    formatter = response_format(pool.name)
    if body.stream:
        return await _stream(service, pool, queued, request, formatter, body.stream_options)
    result = await service.result(pool, queued, request)
    answers = _answers_or_raise(result)
    choices: list[dict[str, Any]] = []
    for answer in answers:
        for each in (answer, *answer.alternatives):
            content = formatter.choice(each.text)
            choices.append({"index": len(choices), **content, "finish_reason": finish_reason(each)})
    return JSONResponse(
        {
            **formatter.envelope(formatter.object_name, choices),
            "usage": _usage(answers),
            "edge": _extras(result, answers),
        }
    )


def _answers_or_raise(result: RequestResult) -> list[Generation]:
    """The answers to all texts.

    Raises:
        EdgeError: The first error among them.
    """
    answers = []
    for answer in result.answers:
        if isinstance(answer, EdgeError):
            raise answer
        answers.append(answer)
    return answers


def _usage(answers: list[Generation]) -> dict[str, int]:
    prompt = sum(answer.input_tokens for answer in answers)
    completion = sum(a.output_tokens for answer in answers for a in (answer, *answer.alternatives))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _extras(result: RequestResult, answers: list[Generation]) -> dict[str, Any]:
    """Values that OpenAI's format has no field for; its clients ignore unknown keys."""
    return {
        "queue_ms": round(result.queue_ms, 3),
        "engine_ms": round(result.engine_ms, 3),
        "scores": [answer.score for answer in answers],
        "parts": [answer.parts for answer in answers],
        "truncated": [answer.truncated for answer in answers],
    }


# -- streaming -------------------------------------------------------------------------------------


async def _stream(
    service: Service,
    pool: WorkerPool,
    queued: QueuedRequest,
    request: Request,
    formatter: _Completion,
    options: StreamOptions | None,
) -> Response:
    pieces = service.pieces(pool, queued)
    # Until the first piece is here, an error can still have its own HTTP status.
    first = await service.first_piece(pieces, queued, request)
    if queued.future.done():
        _answers_or_raise(queued.future.result())

    async def events() -> AsyncIterator[str]:
        sent = False
        try:
            if (first_chunk := formatter.first_chunk()) is not None:
                yield _event(first_chunk)
            if first is not None:
                sent = True
                yield _event(formatter.chunk(formatter.delta(first)))
                async for piece in pieces:
                    yield _event(formatter.chunk(formatter.delta(piece)))
            result = queued.future.result()
            service.log_result(request, result)
            [answer] = _answers_or_raise(result)
            if not sent and answer.text:  # beams, chunked inputs and fallbacks have no pieces
                yield _event(formatter.chunk(formatter.delta(answer.text)))
            last = formatter.chunk(formatter.delta(None), finish_reason(answer))
            yield _event({**last, "edge": _extras(result, [answer])})
            if options is not None and options.include_usage:
                yield _event(
                    {**formatter.envelope(formatter.chunk_name, []), "usage": _usage([answer])}
                )
        except (ApiError, EdgeError) as error:
            api_error = to_api_error(error)
            request.scope["edge"]["code"] = api_error.code
            yield _event(api_error.body)
        finally:
            await pieces.aclose()
        yield "data: [DONE]\n\n"

    return StreamingResponse(
        events(),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
