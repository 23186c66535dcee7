"""OpenAI's routes: /v1/models, /v1/completions and /v1/chat/completions."""

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
from edge.runtime.serve.errors import ApiError, api_error
from edge.runtime.serve.jobs import QueuedRequest, Served
from edge.runtime.serve.pool import Pool
from edge.runtime.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    OpenAIRequest,
    StreamOptions,
    texts_of,
)
from edge.runtime.serve.service import Service


def finish_reason(answer: Generation) -> str:
    """OpenAI's word for how an answer ended."""
    return "length" if answer.finish_reason == "length" else "stop"


def openai_router(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(pool, service) for pool in _pools(service)]}

    @router.get("/models/{name:path}")
    async def show_model(name: str, request: Request) -> dict[str, Any]:
        return _model(service.pool(name, request), service)

    @router.post("/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        texts = texts_of(body.prompt, "prompt")
        return await _answer(service, body, texts, request, _Completion)

    @router.post("/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(service, body, [body.text(service.settings.chat)], request, _Chat)

    return router


def _pools(service: Service) -> list[Pool]:
    return list(service.pools.values())


def _model(pool: Pool, service: Service) -> dict[str, Any]:
    """OpenAI's description of a model; what only we know is under "edge"."""
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
            "on_long": model.guardrails.on_long,
            "chat": service.settings.chat,
            "target_ms": service.settings.target_ms,
            "threads": model.engine.threads,
            "workers": pool.workers,
            "max_batch": pool.max_batch,
        },
    }


# -- the two forms of a completion -----------------------------------------------------------------


@dataclass
class _Completion:
    """How /v1/completions words an answer; the chat's differs in what is overridden."""

    model: str
    prefix = "cmpl"
    whole, part = "text_completion", "text_completion"

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text, "logprobs": None}

    def delta(self, text: str | None) -> dict[str, Any]:
        return {"text": text or "", "logprobs": None}

    def opening(self) -> dict[str, Any] | None:
        return None

    def chunk(self, content: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return self.envelope(self.part, [{"index": 0, **content, "finish_reason": reason}])


class _Chat(_Completion):
    prefix = "chatcmpl"
    whole, part = "chat.completion", "chat.completion.chunk"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}, "logprobs": None}

    def delta(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}, "logprobs": None}

    def opening(self) -> dict[str, Any] | None:
        return self.chunk({"delta": {"role": "assistant", "content": ""}, "logprobs": None})


async def _answer(
    service: Service,
    body: OpenAIRequest,
    texts: list[str],
    request: Request,
    form: type[_Completion],
) -> Response:
    pool = service.pool(body.model, request)
    job = service.submit(pool, body, texts, request, stream=body.stream)
    words = form(pool.name)
    if body.stream:
        return await _stream(service, pool, job, request, words, body.stream_options)
    served = await service.wait(pool, job, request)
    answers = _all(served)
    choices: list[dict[str, Any]] = []
    for answer in answers:
        for each in (answer, *answer.alternatives):
            content = words.choice(each.text)
            choices.append({"index": len(choices), **content, "finish_reason": finish_reason(each)})
    return JSONResponse(
        {
            **words.envelope(words.whole, choices),
            "usage": _usage(answers),
            "edge": _figures(served, answers),
        }
    )


def _all(served: Served) -> list[Generation]:
    """The answers, if there is one to every text.

    Raises:
        EdgeError: the first that there is instead of an answer.
    """
    answers = []
    for answer in served.answers:
        if isinstance(answer, EdgeError):
            raise answer
        answers.append(answer)
    return answers


def _usage(answers: list[Generation]) -> dict[str, int]:
    read = sum(answer.input_tokens for answer in answers)
    made = sum(a.output_tokens for answer in answers for a in (answer, *answer.alternatives))
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _figures(served: Served, answers: list[Generation]) -> dict[str, Any]:
    """What OpenAI's form has no place for; its clients pass over keys that they don't know."""
    return {
        "queue_ms": round(served.queue_ms, 3),
        "engine_ms": round(served.engine_ms, 3),
        "scores": [answer.score for answer in answers],
        "parts": [answer.parts for answer in answers],
        "truncated": [answer.truncated for answer in answers],
    }


# -- streaming -------------------------------------------------------------------------------------


async def _stream(
    service: Service,
    pool: Pool,
    job: QueuedRequest,
    request: Request,
    words: _Completion,
    options: StreamOptions | None,
) -> Response:
    pieces = service.pieces(pool, job)
    # What fails before the first piece is still an error with a status of its own.
    first = await service.first_piece(pieces, job, request)
    if job.future.done():
        _all(job.future.result())

    async def events() -> AsyncIterator[str]:
        sent = False
        try:
            if (opening := words.opening()) is not None:
                yield _event(opening)
            if first is not None:
                sent = True
                yield _event(words.chunk(words.delta(first)))
                async for piece in pieces:
                    yield _event(words.chunk(words.delta(piece)))
            served = job.future.result()
            service.note(request, served)
            [answer] = _all(served)
            if not sent and answer.text:  # beams, parts, fallbacks: nothing came before the end
                yield _event(words.chunk(words.delta(answer.text)))
            last = words.chunk(words.delta(None), finish_reason(answer))
            yield _event({**last, "edge": _figures(served, [answer])})
            if options is not None and options.include_usage:
                yield _event({**words.envelope(words.part, []), "usage": _usage([answer])})
        except (ApiError, EdgeError) as error:
            told = api_error(error)
            request.scope["edge"]["code"] = told.code
            yield _event(told.body)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        yield "data: [DONE]\n\n"

    return StreamingResponse(
        events(),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
