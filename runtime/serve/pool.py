"""Worker threads of one model, which answer the requests in its queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from edge.runtime.errors import EdgeError, InputTooLongError, one_line
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from edge.runtime.serve.autobatch import measure_batch_size
from edge.runtime.serve.errors import ApiError, deadline_error, to_api_error
from edge.runtime.serve.estimate import ActiveClock
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.queued_request import QueuedRequest, RequestResult
from edge.runtime.serve.request_queue import RequestQueue
from edge.runtime.serve.settings import ServeSettings

_LOG = logging.getLogger("edge.serve")
# A worker that dies again and again must not use up a core.
_RESTART_PAUSE_S = 0.1


class _UnwantedError(Exception):
    """The clients of all requests of a run have left, or their deadlines have passed."""


class WorkerPool:
    """Queue and workers of one model.

    A worker that dies is replaced: libraries written in Rust raise a BaseException for a panic.

    Attributes:
        name: The model's name.
        model: The loaded model.
        workers: Number of worker threads.
        max_batch: Most texts per run.
        queue: The requests that wait or run.
        warmed_up: Set once the warm-up has ended.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        settings: ServeSettings,
        metrics: Metrics,
        clock: ActiveClock,
    ) -> None:
        """Start the workers. The first of them warms up the engine.

        Raises:
            ArtifactError: A further copy of the artifact can't be loaded.
        """
        self.name = name
        self.model = model
        self.workers = settings.workers or model.engine.parallel_calls
        self.max_batch = settings.max_batch or 1
        self.queue = RequestQueue(name, self.workers, settings, metrics, clock)
        self.warmed_up = threading.Event()
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._warm_up_failed = False
        self._warm_up_started = clock.now()
        self._closed = False
        self._copies = [] if model.engine.concurrent else _load_copies(model, self.workers - 1)
        self._lock = threading.Lock()  # guards _threads and _closed
        self._threads: dict[int, threading.Thread] = {}
        for number in range(self.workers):
            self._start_worker(number)

    # -- threads ---------------------------------------------------------------------------------

    def _start_worker(self, number: int) -> None:
        with self._lock:
            if self._closed:
                return
            self._threads[number] = threading.Thread(
                target=self._worker, args=(number,), name=f"edge-{self.name}-{number}", daemon=True
            )
            self._threads[number].start()

    def _worker(self, number: int) -> None:
        """Target of a worker's thread. If it ends before the pool is closed, start another."""
        models = [self.model, *self._copies]
        try:
            self._run(models[number % len(models)], warms_up=number == 0)
        except BaseException:
            _LOG.exception("a worker of %s failed", self.name)
        if not self._closed:
            self._metrics.worker_restarts.labels(self.name).inc()
            time.sleep(_RESTART_PAUSE_S)
            self._start_worker(number)

    def _run(self, model: Model, *, warms_up: bool) -> None:
        """Answer batches until the pool is closed or this thread should be replaced."""
        if warms_up and not self.warmed_up.is_set():
            self._warm_up(model)
        self.warmed_up.wait()
        usable = True
        while usable and (batch := self.queue.next_batch(self.max_batch)):
            try:
                usable = self._answer_or_fail(model, batch.requests)
            finally:
                self.queue.finish(batch)

    def _warm_up(self, model: Model) -> None:
        try:
            measured = measure_batch_size(model, max_size=self._settings.max_batch)
            self.max_batch = self._settings.max_batch or measured.batch_size
            self.queue.estimate.set_baseline(measured.seconds_per_text, self._clock.now())
        except BaseException:  # a panic too
            _LOG.exception("warming up %s failed", self.name)
            self._warm_up_failed = True
        finally:
            self.warmed_up.set()

    # -- answers ---------------------------------------------------------------------------------

    def _answer_or_fail(self, model: Model, requests: Sequence[QueuedRequest]) -> bool:
        """Answer requests; on an error fail them.

        Returns:
            False after a panic: the thread should be replaced.
        """
        try:
            self._answer(model, requests)
        except _UnwantedError:
            for queued in requests:
                queued.set_exception(deadline_error(queued.timeout))
        except (EdgeError, ApiError) as error:
            self._log_internal([error])
            for queued in requests:
                queued.set_exception(error)
        except BaseException as error:
            if len(requests) > 1:  # one of them may be the cause
                usable = [self._answer_or_fail(model, [queued]) for queued in requests]
                return all(usable)
            _LOG.exception("a request to %s failed", self.name)
            requests[0].set_exception(to_api_error(error))
            return isinstance(error, Exception)
        return True

    def _answer(self, model: Model, requests: Sequence[QueuedRequest]) -> None:
        taken, started = time.monotonic(), self._clock.now()
        for queued in requests:
            self._metrics.queue_wait.labels(self.name).observe(taken - queued.queued_at)
        if requests[0].streams_pieces and model.guardrails.output is None:
            answers = self._stream(model, requests[0])
        else:
            answers = self._generate(model, requests)
        ended = self._clock.now()
        seconds = ended - started
        self._metrics.observe_run(self.name, seconds, answers)
        self.queue.estimate.add(sum(queued.sequences for queued in requests), seconds, ended)
        self._log_internal(answers)
        if any(isinstance(answer, Generation) for answer in answers):
            self._warm_up_failed = False
        remaining = iter(answers)
        for queued in requests:
            queued.set_result(
                RequestResult(
                    [next(remaining) for _ in queued.texts],
                    queue_ms=(taken - queued.queued_at) * 1000,
                    engine_ms=seconds * 1000,
                    batch_texts=len(answers),
                )
            )

    def _log_internal(self, results: Sequence[Generation | Exception]) -> None:
        """Log errors of the model, whose details the responses do not contain."""
        for result in results:
            if isinstance(result, EdgeError) and to_api_error(result).status == 500:
                _LOG.error("a request to %s failed: %s", self.name, one_line(result))

    def _generate(
        self, model: Model, requests: Sequence[QueuedRequest]
    ) -> list[Generation | EdgeError]:
        def stop_if_unwanted() -> None:
            if all(queued.cancelled or queued.expired for queued in requests):
                raise _UnwantedError

        return model.generate_each(
            [text for queued in requests for text in queued.texts],
            fields=[fields for queued in requests for fields in queued.fields],
            on_long=requests[0].on_long,
            batch_size=max(1, self.max_batch),
            before_batch=stop_if_unwanted,
            **requests[0].generate_kwargs,
        )

    def _stream(self, model: Model, queued: QueuedRequest) -> list[Generation | EdgeError]:
        [text], [fields] = queued.texts, queued.fields
        try:
            stream = model.stream(
                text, fields=fields, on_long=queued.on_long, **queued.generate_kwargs
            )
        except InputTooLongError as error:
            if (queued.on_long or model.guardrails.on_long) == "error":
                return [error]
            return self._generate(model, [queued])  # chunks and fallbacks can't be streamed
        with stream:
            for piece in stream:
                if queued.cancelled or queued.expired:
                    raise _UnwantedError
                queued.emit(piece)
        return [stream.result]

    # -- state -----------------------------------------------------------------------------------

    def problem(self) -> str | None:
        """Why the model should get no requests, in one sentence."""
        dead = sum(not thread.is_alive() for thread in list(self._threads.values()))
        limit = self._settings.stuck_after
        if self._warm_up_failed:
            return "the warm-up failed; see the log"
        if not self.warmed_up.is_set():
            endless = self._clock.now() - self._warm_up_started > limit
            return f"the warm-up has been running for more than {limit:g} s" if endless else None
        if dead:
            return f"{dead} of {self.workers} workers have stopped"
        if self.queue.running_longer_than(limit) >= self.workers:
            return f"every worker has been busy with one run for more than {limit:g} s"
        return self.queue.lockout()

    def close(self, timeout: float | None = None) -> bool:
        """Fail the waiting requests, wait for the running ones, and stop the workers.

        Args:
            timeout: Seconds to wait; None waits until every run has ended.

        Returns:
            Whether all workers have ended. If not, an engine is in use and can't be closed.
        """
        with self._lock:
            self._closed = True
            threads = list(self._threads.values())
        self.queue.close()
        self.warmed_up.set()  # the other workers wait for it
        until = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            return False
        for model in self._copies:
            model.close()
        return True


def _load_copies(model: Model, number: int) -> list[Model]:
    """Models that answer as `model` does, each with its own engine."""
    copies = []
    for _ in range(number):
        # The opened artifact has the settings that the caller gave to `load`.
        engine = type(model.engine)(model.artifact, threads=model.engine.threads)
        copy = Model(model.artifact, engine, model.guardrails)
        copy.encoder, copy.defaults = model.encoder, model.defaults
        copies.append(copy)
    return copies
