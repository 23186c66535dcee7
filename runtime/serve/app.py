"""FastAPI app with the routes, error handlers and middleware of the service."""

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
from edge.runtime.serve.errors import ApiError, to_api_error
from edge.runtime.serve.middleware import RequestMiddleware
from edge.runtime.serve.playground import playground_router
from edge.runtime.serve.routes_native import native_router
from edge.runtime.serve.routes_openai import openai_router
from edge.runtime.serve.schemas import ChatRequest, CompletionRequest, GenerateRequest
from edge.runtime.serve.service import Service
from edge.runtime.serve.settings import ServeSettings

# For runs that nobody waits for any more. One that never ends must not hold the process.
_CLOSE_TIMEOUT_S = 1.0


def create_app(
    models: Model | Mapping[str, Model], settings: ServeSettings | None = None
) -> FastAPI:
    """Create a FastAPI app that serves loaded models, alone or mounted in another app.

    ```python
    app.mount("/edge", create_app(load("artifact")))
    ```

    This starts the worker threads. The app's lifespan stops them. The lifespan of a mounted app
    does not run: its host must call `app.state.service.close()`. Close the models after that.

    Args:
        models: Models by name. A single model is named after its folder.
        settings: Limits, API keys and so on. None: the defaults.

    Raises:
        UsageError: `models` is empty.
    """
    if isinstance(models, Model):
        models = {models.artifact.folder.resolve().name: models}
    settings = settings or ServeSettings()
    service = Service(models, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close, _CLOSE_TIMEOUT_S)

    # Swagger UI and ReDoc would load scripts from other sites. /openapi.json stays.
    app = FastAPI(title="edge", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.include_router(openai_router(service))
    app.include_router(native_router(service))
    app.include_router(playground_router())
    app.add_exception_handler(ApiError, _edge_error)
    app.add_exception_handler(EdgeError, _edge_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_middleware(RequestMiddleware, service=service)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-timeout"],
        )
    return app


def _respond(request: Request, error: ApiError) -> Response:
    request.scope.setdefault("edge", {})["code"] = error.code
    return JSONResponse(error.body, error.status, error.headers)


async def _edge_error(request: Request, error: Exception) -> Response:
    return _respond(request, to_api_error(error))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's errors: unknown path, wrong method, a body that is not JSON."""
    assert isinstance(error, HTTPException)
    codes = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, f"http_{error.status_code}")
    message = str(error.detail)
    if error.status_code == 404:
        message = "unknown path. Known: /v1/models, /v1/completions, /v1/chat/completions, …"
    response = _respond(request, ApiError(error.status_code, code, message))
    response.headers.update(error.headers or {})
    return response


async def _validation_error(request: Request, error: Exception) -> Response:
    """A body that does not fit the schema: 400 if not JSON or an unknown parameter, else 422."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(location)[:100] or None
    if first["type"] == "json_invalid":
        api_error = ApiError(400, "invalid_json", "the request body is not valid JSON")
    elif first["type"] == "extra_forbidden":
        known = tuple(sorted(_parameters(request)))
        message = unknown_name("parameter", location[-1][:100], known)
        api_error = ApiError(400, "unknown_parameter", message, param=param)
    else:
        message = f"{param}: {first['msg']}" if param else str(first["msg"])
        if not location:
            message += ". Send a JSON object with content-type application/json"
        api_error = ApiError(422, "invalid_type", message, param=param)
    return _respond(request, api_error)


def _parameters(request: Request) -> set[str]:
    """The parameters of a route's body."""
    for ending, body in (
        ("/chat/completions", ChatRequest),
        ("/completions", CompletionRequest),
        ("/generate", GenerateRequest),
    ):
        if request.url.path.endswith(ending):
            return set(body.model_fields)
    return set()
