"""The service behind the routes: its models, who is inside, and how a request is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.model import Model
from edge.runtime.registry import unknown_name
from edge.runtime.serve.errors import ApiError, api_error, deadline_error
from edge.runtime.serve.jobs import QueuedRequest, Served
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.pool import Pool
from edge.runtime.serve.schemas import Options
from edge.runtime.serve.settings import ServeSettings

T = TypeVar("T")

_TIMEOUT_HEADER = "x-request-timeout"
_GRACE = 0.2


class Service:
    """Pools by name, and the requests under way."""

    def __init__(self, models: Mapping[str, Model], settings: ServeSettings) -> None:
        if not models:
            raise UsageError("there is no model to serve")
        self.settings = settings
        self.metrics = Metrics()
        self.pools = {
            name: Pool(name, model, settings, self.metrics) for name, model in models.items()
        }
        self.draining = False
        self.accepted = self.answered = self.left = 0
        self._inside = 0

    # -- who is inside ---------------------------------------------------------------------------

    def enter(self) -> None:
        """Count a request in.

        Raises:
            ApiError: 503, the service drains or has too many requests under way.
        """
        if self.draining:
            raise ApiError(503, "draining", "the service is shutting down", retry_after=5)
        if self._inside >= self.settings.max_requests:
            raise ApiError(
                503, "too_many_requests", "too many requests are under way", retry_after=1
            )
        self.accepted += 1
        self._inside += 1
        self.metrics.in_flight.set(self._inside)

    def leave(self, *, answered: bool) -> None:
        """Count a request out; not answered are those whose client left."""
        self._inside -= 1
        self.answered += answered
        self.left += not answered
        self.metrics.in_flight.set(self._inside)

    @property
    def idle(self) -> bool:
        """Whether every request that was let in has its whole answer."""
        return self._inside == 0 and all(pool.idle for pool in self.pools.values())

    @property
    def ready(self) -> bool:
        return not self.draining and all(pool.ready.is_set() for pool in self.pools.values())

    def drain(self) -> None:
        """Refuse new requests; those under way are answered."""
        self.draining = True

    def close(self) -> None:
        """End the workers after what they are doing. The models stay open."""
        self.draining = True
        for pool in self.pools.values():
            pool.close()

    def observe(self, notes: Mapping[str, Any], status: int, seconds: float) -> None:
        """Count a request that has ended."""
        model = str(notes.get("model", ""))
        self.metrics.requests.labels(model, status).inc()
        if status < 400 and "code" not in notes:
            self.metrics.success.labels(model).inc()
            self.metrics.request_seconds.labels(model).observe(seconds)
        else:
            self.metrics.errors.labels(model, notes.get("code", f"http_{status}")).inc()

    # -- answering -------------------------------------------------------------------------------

    def pool(self, name: str | None, request: Request) -> Pool:
        """The pool of that name; a service with one artifact needs none.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name is None and len(self.pools) == 1:
            name = next(iter(self.pools))
        if name is None or name not in self.pools:
            known = tuple(self.pools)
            message = (
                f"say which model: {', '.join(known)}"
                if name is None
                else unknown_name("model", name[:100], known)
            )
            raise ApiError(404, "model_not_found", message, param="model")
        request.scope["edge"]["model"] = name
        return self.pools[name]

    def submit(
        self, pool: Pool, body: Options, texts: Sequence[str], request: Request, *, stream: bool
    ) -> QueuedRequest:
        """Queue a request's texts.

        Raises:
            ApiError: an option that can't be honored, or a queue that can't take it.
        """
        given = body.generation()
        try:
            options = pool.model.options(given)
            pool.model.engine.check_options(options)
        except EdgeError as error:
            refused = api_error(error)
            if "num_return_sequences above" in str(error):
                refused.param = "n"
                refused.message += " (n above num_beams; or set a temperature)"
            raise refused from None
        if stream and (len(texts) > 1 or options.num_return_sequences > 1):
            raise ApiError(400, "unsupported_parameter", "stream takes one text and n 1")
        job = QueuedRequest(
            texts=texts,
            fields=[body.fields or {}] * len(texts),
            given=given,
            options=options,
            on_long=body.on_long,
            deadline=time.monotonic() + self._patience(request),
            stream=stream,
        )
        if self.settings.log_content:
            request.scope["edge"]["input"] = list(texts)
        pool.submit(job)
        return job

    def _patience(self, request: Request) -> float:
        """Seconds that a request may take: the service's deadline, or the client's if shorter."""
        given = request.headers.get(_TIMEOUT_HEADER)
        if given is None:
            return self.settings.deadline
        try:
            seconds = float(given)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ApiError(
                400, "invalid_value", "must be a number of seconds", param=_TIMEOUT_HEADER
            )
        return min(seconds, self.settings.deadline)

    async def wait(self, pool: Pool, job: QueuedRequest, request: Request) -> Served:
        """A job's answers; a job whose client leaves or whose deadline passes is dropped.

        Raises:
            ApiError, EdgeError: there are none.
        """
        try:
            served = await self._unless_gone(job.future, job, request)
        finally:
            if not job.future.done():
                pool.cancel(job)
        self.note(request, served)
        return served

    async def first_piece(
        self, pieces: AsyncIterator[str], job: QueuedRequest, request: Request
    ) -> str | None:
        """The first of a job's pieces, None where there are none. Until the response begins,
        nobody else notices that the client has left."""

        async def following() -> str | None:
            return await anext(pieces, None)

        first = asyncio.ensure_future(following())
        try:
            return await self._unless_gone(first, job, request)
        finally:
            first.cancel()  # which ends `pieces`, and with it the job

    async def _unless_gone(
        self, wanted: asyncio.Future[T], job: QueuedRequest, request: Request
    ) -> T:
        """What `wanted` gives within the job's deadline, while the client is there."""
        gone = asyncio.ensure_future(_until_gone(request))
        waited: set[asyncio.Future[Any]] = {wanted, gone}
        try:
            await asyncio.wait(
                waited,
                timeout=max(0.0, job.deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if wanted.done():
                return wanted.result()
            if gone.done():
                raise ApiError(499, "client_left", "the client has left")
            raise deadline_error(self.settings.deadline)
        finally:
            gone.cancel()

    async def pieces(self, pool: Pool, job: QueuedRequest) -> AsyncIterator[str]:
        """The pieces of a streaming job as they come; `job.future` is done after the last.

        Raises:
            ApiError, EdgeError: the answer failed.
        """
        try:
            while True:
                # The worker watches the deadline too, at each piece; this is for one that waits.
                left = max(0.0, job.deadline - time.monotonic()) + _GRACE
                piece = await asyncio.wait_for(job.pieces.get(), left)
                if piece is None:
                    break
                yield piece
            job.future.result()
        except TimeoutError:
            raise deadline_error(self.settings.deadline) from None
        finally:
            if not job.future.done():
                pool.cancel(job)

    def note(self, request: Request, served: Served) -> None:
        """Token counts and times for the log; content only where that was asked for."""
        done = [answer for answer in served.answers if not isinstance(answer, EdgeError)]
        request.scope["edge"] |= {
            "texts": len(served.answers),
            "input_tokens": sum(answer.input_tokens for answer in done),
            "output_tokens": sum(answer.output_tokens for answer in done),
            "queue_ms": round(served.queue_ms, 1),
            "engine_ms": round(served.engine_ms, 1),
        }
        if self.settings.log_content:
            request.scope["edge"]["output"] = [answer.text for answer in done]


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
