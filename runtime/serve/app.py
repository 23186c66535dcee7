"""The app: routes, errors in one shape, and the gate in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from edge.runtime.errors import EdgeError
from edge.runtime.model import Model
from edge.runtime.registry import unknown_name
from edge.runtime.serve.errors import ApiError, api_error
from edge.runtime.serve.middleware import Gate
from edge.runtime.serve.playground import page_router
from edge.runtime.serve.routes_native import native_router
from edge.runtime.serve.routes_openai import openai_router
from edge.runtime.serve.schemas import ChatRequest, CompletionRequest, GenerateRequest
from edge.runtime.serve.service import Service
from edge.runtime.serve.settings import ServeSettings


def create_app(
    models: Model | Mapping[str, Model], settings: ServeSettings | None = None
) -> FastAPI:
    """A FastAPI app that serves loaded models, alone or mounted in another.

        app.mount("/edge", create_app(load("artifact")))

    Worker threads start here. The app's own lifespan ends them; a mounted app's lifespan is not
    run by its host, which calls `app.state.service.close()` when it ends. Closing the models is
    the caller's, after that.

    Args:
        models: one model, which is named after its folder, or models by name.
        settings: limits, keys and the like; None takes the defaults.
    """
    if isinstance(models, Model):
        models = {models.artifact.folder.resolve().name: models}
    chosen = settings or ServeSettings()
    service = Service(models, chosen)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # Swagger's and ReDoc's pages load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="edge", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.include_router(openai_router(service))
    app.include_router(native_router(service))
    app.include_router(page_router())
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(EdgeError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Gate, service=service)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(chosen.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-timeout"],
        )
    return app


def _respond(request: Request, error: ApiError) -> Response:
    request.scope.setdefault("edge", {})["code"] = error.code
    return JSONResponse(error.body, error.status, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    told = api_error(error)
    if told.status == 500:
        raise error  # for the log, by the gate
    return _respond(request, told)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, wrong method, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    codes = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, f"http_{error.status_code}")
    message = str(error.detail)
    if error.status_code == 404:
        message = "no such path; there are /v1/models, /v1/completions, /v1/chat/completions, …"
    response = _respond(request, ApiError(error.status_code, code, message))
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    """A body of the wrong form: 400 for what is no JSON or no known argument, else 422."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(where)[:100] or None
    if first["type"] == "json_invalid":
        told = ApiError(400, "invalid_json", "the body is no JSON")
    elif first["type"] == "extra_forbidden":
        known = tuple(sorted(_fields(request)))
        message = unknown_name("argument", where[-1][:100], known)
        told = ApiError(400, "unknown_parameter", message, param=param)
    else:
        message = f"{param}: {first['msg']}" if param else str(first["msg"])
        if not where:
            message += " (a JSON object, with content-type application/json)"
        told = ApiError(422, "invalid_type", message, param=param)
    return _respond(request, told)


def _fields(request: Request) -> set[str]:
    """The arguments that a route takes."""
    for ending, body in (
        ("/chat/completions", ChatRequest),
        ("/completions", CompletionRequest),
        ("/generate", GenerateRequest),
    ):
        if request.url.path.endswith(ending):
            return set(body.model_fields)
    return set()
