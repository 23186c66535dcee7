"""State of the service: its models, and the requests in progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.model import Model
from edge.runtime.registry import unknown_name
from edge.runtime.serve.errors import ApiError, deadline_error, to_api_error
from edge.runtime.serve.estimate import ActiveClock
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.pool import WorkerPool
from edge.runtime.serve.queued_request import QueuedRequest, RequestResult
from edge.runtime.serve.request_limits import check_constraint, check_work, request_timeout
from edge.runtime.serve.schemas import RequestOptions
from edge.runtime.serve.settings import ServeSettings

T = TypeVar("T")

_GRACE_S = 0.2


class Service:
    """Worker pools by model name, and counters of requests.

    Attributes:
        draining: New requests are refused.
        accepted: Requests admitted so far.
        answered: Requests whose whole response was sent.
        disconnected: Requests whose client left first.
        lost: Requests that were cut because the drain time was over.
        stopped: Every worker has ended after `close`.
    """

    def __init__(self, models: Mapping[str, Model], settings: ServeSettings) -> None:
        """Start the workers.

        Raises:
            UsageError: `models` is empty.
        """
        if not models:
            raise UsageError("no models to serve. Give at least one")
        self.settings = settings
        self.metrics = Metrics()
        self._clock = ActiveClock()
        self.pools = {
            name: WorkerPool(name, model, settings, self.metrics, self._clock)
            for name, model in models.items()
        }
        self.draining = False
        self.accepted = self.answered = self.disconnected = 0
        self.lost = 0
        self.stopped = False
        self._cutting = False
        self._in_flight = 0

    # -- admission -------------------------------------------------------------------------------

    def begin_request(self) -> None:
        """Admit a request.

        Raises:
            ApiError: 503, the service is draining or has too many requests in progress.
        """
        if self.draining:
            raise ApiError(503, "draining", "the service is shutting down", retry_after=5)
        if self._in_flight >= self.settings.max_requests:
            raise ApiError(
                503,
                "too_many_requests",
                f"{self._in_flight} requests are in progress, the limit. Try again later",
                retry_after=1,
            )
        self.accepted += 1
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)

    def end_request(self, *, answered: bool) -> None:
        """Count the end of an admitted request.

        Not answered means that the client left, or that the drain time was over.
        """
        self._in_flight -= 1
        if answered:
            self.answered += 1
        elif self._cutting:
            self.lost += 1
        else:
            self.disconnected += 1
        self.metrics.in_flight.set(self._in_flight)

    @property
    def idle(self) -> bool:
        """Whether every admitted request has its whole response."""
        return self._in_flight == 0 and all(pool.queue.idle for pool in self.pools.values())

    @property
    def unanswered(self) -> int:
        """Admitted requests without a whole response."""
        return self._in_flight

    def drain(self) -> None:
        """Refuse new requests. Those in progress are answered."""
        self.draining = True

    def cut(self) -> None:
        """Count requests that end without an answer as lost from now on: the drain time is over."""
        self._cutting = True

    def close(self, timeout: float | None = None) -> bool:
        """Stop the workers after their current runs. The models stay open.

        Args:
            timeout: Seconds to wait for each model's runs; None waits until they have ended.

        Returns:
            Whether all workers have ended. If not, the models are in use and can't be closed.
        """
        self.draining = True
        ended = [pool.close(timeout) for pool in self.pools.values()]
        self.stopped = all(ended)
        self._clock.close()
        return self.stopped

    def record_request(self, log_values: Mapping[str, Any], status: int, seconds: float) -> None:
        """Update the metrics after a request."""
        model = str(log_values.get("model", ""))
        self.metrics.requests.labels(model, status).inc()
        if status < 400 and "code" not in log_values:
            self.metrics.success.labels(model).inc()
            self.metrics.request_seconds.labels(model).observe(seconds)
        else:
            self.metrics.errors.labels(model, log_values.get("code", f"http_{status}")).inc()

    # -- answers ---------------------------------------------------------------------------------

    def pool(self, name: str | None, request: Request) -> WorkerPool:
        """The pool of a model. The name may be omitted if there is only one.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name is None and len(self.pools) == 1:
            name = next(iter(self.pools))
        if name is None or name not in self.pools:
            known = tuple(self.pools)
            message = (
                f"the model is missing. Choose one: {', '.join(known)}"
                if name is None
                else unknown_name("model", name[:100], known)
            )
            raise ApiError(404, "model_not_found", message, param="model")
        request.scope["edge"]["model"] = name
        return self.pools[name]

    def submit(
        self,
        pool: WorkerPool,
        body: RequestOptions,
        texts: Sequence[str],
        request: Request,
        *,
        stream: bool,
    ) -> QueuedRequest:
        """Put a request's texts into the pool's queue.

        Raises:
            ApiError: An option is invalid or not supported, or the queue is full.
        """
        generate_kwargs = body.generate_kwargs()
        check_constraint(generate_kwargs, self.settings)
        try:
            options = pool.model.options(generate_kwargs)
            pool.model.engine.check_options(options)
        except EdgeError as error:
            refused = to_api_error(error)
            if "num_return_sequences" in str(error):
                refused.param = "n"
                refused.message += " (n is num_return_sequences; a temperature above 0 samples)"
            raise refused from None
        check_work(options, len(texts), self.settings)
        if stream and (len(texts) > 1 or options.num_return_sequences > 1):
            raise ApiError(400, "unsupported_parameter", "stream needs a single text and n=1")
        queued = QueuedRequest(
            texts=texts,
            fields=[body.fields or {}] * len(texts),
            generate_kwargs=generate_kwargs,
            options=options,
            on_long=body.on_long,
            timeout=request_timeout(request, self.settings),
            stream=stream,
        )
        if self.settings.log_content:
            request.scope["edge"]["input"] = list(texts)
        pool.queue.submit(queued)
        return queued

    async def result(
        self, pool: WorkerPool, queued: QueuedRequest, request: Request
    ) -> RequestResult:
        """Wait for the answers. Cancels the request if its client leaves or its deadline passes.

        Raises:
            ApiError: The client left or the deadline passed.
            EdgeError: The run failed.
        """
        try:
            result = await self._wait_while_connected(queued.future, queued, request)
        finally:
            if not queued.future.done():
                pool.queue.cancel(queued)
        self.log_result(request, result)
        return result

    async def first_piece(
        self, pieces: AsyncIterator[str], queued: QueuedRequest, request: Request
    ) -> str | None:
        """Wait for the first piece of a stream; None if there is none.

        Until the response starts, only this notices that the client has left.

        Raises:
            ApiError: The client left or the deadline passed.
            EdgeError: The run failed.
        """

        async def next_piece() -> str | None:
            return await anext(pieces, None)

        first = asyncio.ensure_future(next_piece())
        try:
            return await self._wait_while_connected(first, queued, request)
        finally:
            first.cancel()  # closes `pieces`, which cancels the request

    async def _wait_while_connected(
        self, wanted: asyncio.Future[T], queued: QueuedRequest, request: Request
    ) -> T:
        """The result of `wanted`, while the client is connected and the deadline not passed."""
        disconnected = asyncio.ensure_future(_wait_for_disconnect(request))
        futures: set[asyncio.Future[Any]] = {wanted, disconnected}
        try:
            await asyncio.wait(
                futures,
                timeout=max(0.0, queued.deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if wanted.done():
                return wanted.result()
            if disconnected.done():
                raise ApiError(499, "client_left", "the client has disconnected")
            raise deadline_error(queued.timeout)
        finally:
            disconnected.cancel()

    async def pieces(self, pool: WorkerPool, queued: QueuedRequest) -> AsyncGenerator[str, None]:
        """Yield a streaming request's text as it comes. `queued.future` is done after the last.

        Raises:
            ApiError: The deadline passed.
            EdgeError: The run failed.
        """
        try:
            while True:
                # The worker checks the deadline at each piece; this covers a request in the queue.
                timeout = max(0.0, queued.deadline - time.monotonic()) + _GRACE_S
                piece = await asyncio.wait_for(queued.pieces.get(), timeout)
                if piece is None:
                    break
                yield piece
            queued.future.result()
        except TimeoutError:
            raise deadline_error(queued.timeout) from None
        finally:
            if not queued.future.done():
                pool.queue.cancel(queued)

    def log_result(self, request: Request, result: RequestResult) -> None:
        """Add token counts and times to the log line, and texts if `log_content` is set."""
        done = [answer for answer in result.answers if not isinstance(answer, EdgeError)]
        request.scope["edge"] |= {
            "texts": len(result.answers),
            "input_tokens": sum(answer.input_tokens for answer in done),
            "output_tokens": sum(answer.output_tokens for answer in done),
            "queue_ms": round(result.queue_ms, 1),
            "engine_ms": round(result.engine_ms, 1),
        }
        if self.settings.log_content:
            request.scope["edge"]["output"] = [answer.text for answer in done]


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
