"""A FastAPI app with the service mounted at /edge, on one loaded model.

EDGE_ARTIFACT=artifact uvicorn --app-dir examples fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from edge.runtime import load
from edge.runtime.serve import ServeSettings, create_app

model = load(os.environ["EDGE_ARTIFACT"])
service = create_app({"rewrite": model}, ServeSettings(queue_size=32, deadline=5))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    service.state.service.close()  # a mounted app's own lifespan is not run
    model.close()


app = FastAPI(lifespan=lifespan)
app.mount("/edge", service)  # /edge/v1/completions, /edge/ready, /edge/ (the page), …


@app.get("/rewrite")
async def rewrite(text: str) -> dict[str, str]:
    """Your own route: the model without HTTP in between."""
    return {"text": (await model.agenerate(text)).text}
