"""Routes of the service itself: /v1/generate, /health, /ready and /metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from edge.runtime.errors import EdgeError
from edge.runtime.generation import Generation
from edge.runtime.serve.errors import to_api_error
from edge.runtime.serve.pool import WorkerPool
from edge.runtime.serve.schemas import GenerateRequest, as_text_list
from edge.runtime.serve.service import Service


def native_router(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter()

    @router.post("/v1/generate")
    async def generate(body: GenerateRequest, request: Request) -> Response:
        pool = service.pool(body.model, request)
        texts = as_text_list(body.input, "input")
        queued = service.submit(pool, body, texts, request, stream=False)
        result = await service.result(pool, queued, request)
        if isinstance(body.input, str) and isinstance(result.answers[0], EdgeError):
            raise result.answers[0]
        timings = {
            "queue_ms": round(result.queue_ms, 3),
            "engine_ms": round(result.engine_ms, 3),
            "shared_by": result.batch_texts,
        }
        outputs = [_to_json(answer) for answer in result.answers]
        return JSONResponse({"model": pool.name, "outputs": outputs, "timings": timings})

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> Response:
        models = {name: _state(pool) for name, pool in service.pools.items()}
        is_ready = not service.draining and all(state["ready"] for state in models.values())
        if service.draining:
            status = "draining"
        elif not all(pool.warmed_up.is_set() for pool in service.pools.values()):
            status = "starting"
        else:
            status = "ready" if is_ready else "failing"
        return JSONResponse({"status": status, "models": models}, 200 if is_ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _state(pool: WorkerPool) -> dict[str, Any]:
    problem = pool.problem()
    state = {"ready": pool.warmed_up.is_set() and problem is None, "queued": pool.queue.texts}
    return state if problem is None else {**state, "problem": problem}


def _to_json(answer: Generation | EdgeError) -> dict[str, Any]:
    if isinstance(answer, EdgeError):
        return to_api_error(answer).body
    timings = answer.timings
    return {
        "text": answer.text,
        "score": answer.score,
        "finish_reason": answer.finish_reason,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "truncated": answer.truncated,
        "parts": answer.parts,
        "retried": answer.retried,
        "steps": answer.steps,
        "alternatives": [{"text": a.text, "score": a.score} for a in answer.alternatives],
        "timings": {
            "tokenize_ms": round(timings.tokenize_ms, 3),
            "generate_ms": round(timings.generate_ms, 3),
            "detokenize_ms": round(timings.detokenize_ms, 3),
        },
    }
