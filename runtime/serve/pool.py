"""Bounded queue of one model, and the worker threads that answer it.

A free worker takes the oldest request. If the engine gains from batches, it also takes waiting
requests that can share the run. No request waits for a batch to fill.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from edge.runtime.errors import EdgeError, InputTooLongError
from edge.runtime.generation import Generation
from edge.runtime.model import Model, load
from edge.runtime.platform.cpu import usable_cores
from edge.runtime.serve.autobatch import BatchMeasurement, measure_batch_size
from edge.runtime.serve.errors import ApiError, deadline_error
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.queued_request import QueuedRequest, RequestResult
from edge.runtime.serve.settings import ServeSettings

_LOG = logging.getLogger("edge.serve")
# Weight of the latest run in the moving average of the seconds per text.
_EMA_WEIGHT = 0.1


class WorkerPool:
    """Queue and workers of one model. Event loops submit requests, threads answer them.

    Attributes:
        name: The model's name.
        model: The loaded model.
        workers: Number of worker threads.
        max_batch: Most texts per run.
        ready: Set once the engine is warmed up.
    """

    def __init__(self, name: str, model: Model, settings: ServeSettings, metrics: Metrics) -> None:
        """Start the workers. The first of them warms up the engine and sets `ready`.

        Raises:
            ArtifactError: A further copy of the artifact can't be loaded.
        """
        self.name = name
        self.model = model
        self.workers = settings.workers or _default_workers(model)
        self.max_batch = settings.max_batch or 1
        self.ready = threading.Event()
        self._settings = settings
        self._metrics = metrics
        self._queue: deque[QueuedRequest] = deque()
        self._queued_texts = 0
        self._condition = threading.Condition()
        self._busy = 0
        self._closed = False
        self._seconds_per_text = 0.0
        self._copies = [] if model.engine.concurrent else _load_copies(model, self.workers - 1)
        models = [model, *self._copies]
        metrics.add_model(name, settings.queue_size)
        self._threads = [
            threading.Thread(
                target=self._run_worker,
                args=(models[worker % len(models)], worker == 0),
                name=f"edge-{name}-{worker}",
                daemon=True,
            )
            for worker in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    # -- queue -----------------------------------------------------------------------------------

    def submit(self, queued: QueuedRequest) -> None:
        """Append a request to the queue.

        Raises:
            ApiError: 429, the queue is full or the request would miss its deadline; 503, closed.
        """
        texts = len(queued.texts)
        with self._condition:
            if self._closed:
                raise ApiError(503, "closing", "the service is closing", retry_after=5)
            wait = self._estimate_wait(self._queued_texts + self._busy)
            if self._queued_texts + texts > self._settings.queue_size:
                raise ApiError(
                    429,
                    "queue_full",
                    f"{texts} texts do not fit the queue: it holds {self._queued_texts} of"
                    f" {self._settings.queue_size}. Try again later",
                    retry_after=wait,
                )
            if time.monotonic() + wait + self._seconds_per_text * texts > queued.deadline:
                raise ApiError(
                    429,
                    "deadline_unreachable",
                    f"the request would miss its deadline: about {wait:.1f} s in the queue"
                    f" and {self._seconds_per_text * texts:.1f} s to answer. Try again later",
                    retry_after=wait,
                )
            self._queue.append(queued)
            self._add_queued_texts(texts)
            self._condition.notify()

    def cancel(self, queued: QueuedRequest) -> None:
        """Drop a request whose client has left or whose deadline has passed."""
        queued.cancelled = True
        with self._condition:
            if queued in self._queue:
                self._queue.remove(queued)
                self._add_queued_texts(-len(queued.texts))

    @property
    def idle(self) -> bool:
        """Whether no request waits and no worker is busy."""
        with self._condition:
            return not self._queue and not self._busy

    @property
    def queued_texts(self) -> int:
        """Texts in the queue."""
        return self._queued_texts

    def _estimate_wait(self, texts_ahead: int) -> float:
        """Seconds until a worker is free after `texts_ahead` other texts."""
        return texts_ahead * self._seconds_per_text / self.workers

    def _add_queued_texts(self, texts: int) -> None:
        self._queued_texts += texts
        self._metrics.queue_size.labels(self.name).set(self._queued_texts)

    def _next_batch(self) -> list[QueuedRequest]:
        """Wait for the next requests to run together; empty once the pool is closed."""
        with self._condition:
            while True:
                while not self._queue and not self._closed:
                    self._condition.wait()
                if not self._queue:
                    return []
                first = self._queue.popleft()
                self._add_queued_texts(-len(first.texts))
                if first.expired:
                    first.set_exception(deadline_error(self._settings.deadline))
                    continue
                batch = [first, *self._take_matching(first)]
                self._busy += 1
                self._metrics.workers_busy.labels(self.name).set(self._busy)
                return batch

    def _take_matching(self, first: QueuedRequest) -> list[QueuedRequest]:
        # Leave the idle workers their part of the queue.
        idle = self.workers - self._busy - 1
        fair_part = -(-(self._queued_texts + 1) // (idle + 1))
        capacity = min(self.max_batch, fair_part) - len(first.texts)
        taken: list[QueuedRequest] = []
        for queued in list(self._queue):
            if capacity <= 0:
                break
            texts = len(queued.texts)
            if texts <= capacity and first.can_share_batch(queued) and not queued.expired:
                taken.append(queued)
                self._queue.remove(queued)
                self._add_queued_texts(-texts)
                capacity -= texts
        return taken

    # -- workers ---------------------------------------------------------------------------------

    def _run_worker(self, model: Model, first: bool) -> None:
        if first:
            self._warm_up(model)
        self.ready.wait()
        while batch := self._next_batch():
            try:
                self._answer(model, batch)
            except Exception as error:
                for queued in batch:
                    queued.set_exception(error)
                if not isinstance(error, EdgeError | ApiError):
                    _LOG.exception("a worker of %s failed", self.name)
            finally:
                with self._condition:
                    self._busy -= 1
                    self._metrics.workers_busy.labels(self.name).set(self._busy)

    def _warm_up(self, model: Model) -> None:
        measured = BatchMeasurement(1, 0.0)
        try:
            measured = measure_batch_size(model, max_size=self._settings.max_batch)
        except Exception:
            _LOG.exception("warming up %s failed", self.name)
        self.max_batch = self._settings.max_batch or measured.batch_size
        self._seconds_per_text = measured.seconds_per_text
        self.ready.set()

    def _answer(self, model: Model, batch: Sequence[QueuedRequest]) -> None:
        started = time.monotonic()
        for queued in batch:
            self._metrics.queue_wait.labels(self.name).observe(started - queued.queued_at)
        first = batch[0]
        if first.streams_pieces and model.guardrails.output is None:
            answers = self._stream(model, first)
        else:
            answers = self._generate(model, batch)
        seconds = time.monotonic() - started
        self._metrics.observe_run(self.name, seconds, answers)
        with self._condition:
            latest = seconds / len(answers)
            average = self._seconds_per_text or latest
            self._seconds_per_text = average + _EMA_WEIGHT * (latest - average)
        remaining = iter(answers)
        for queued in batch:
            queued.set_result(
                RequestResult(
                    [next(remaining) for _ in queued.texts],
                    queue_ms=(started - queued.queued_at) * 1000,
                    engine_ms=seconds * 1000,
                    batch_texts=len(answers),
                )
            )

    def _generate(
        self, model: Model, batch: Sequence[QueuedRequest]
    ) -> list[Generation | EdgeError]:
        def stop_if_unwanted() -> None:
            if all(queued.cancelled or queued.expired for queued in batch):
                raise deadline_error(self._settings.deadline)

        return model.generate_each(
            [text for queued in batch for text in queued.texts],
            fields=[fields for queued in batch for fields in queued.fields],
            on_long=batch[0].on_long,
            batch_size=max(1, self.max_batch),
            before_batch=stop_if_unwanted,
            **batch[0].generate_kwargs,
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
                    raise deadline_error(self._settings.deadline)
                queued.emit(piece)
        return [stream.result]

    def close(self) -> None:
        """Fail the queued requests, wait for those that run, and stop the workers."""
        with self._condition:
            self._closed = True
            for queued in self._queue:
                queued.set_exception(
                    ApiError(503, "closing", "the service is closing", retry_after=5)
                )
            self._queue.clear()
            self._add_queued_texts(-self._queued_texts)
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        for model in self._copies:
            model.close()


def _default_workers(model: Model) -> int:
    if not model.engine.concurrent:
        return 1
    return max(1, usable_cores() // model.engine.threads)


def _load_copies(model: Model, number: int) -> list[Model]:
    return [
        load(
            model.artifact.folder,
            threads=model.engine.threads,
            guardrails=model.guardrails,
            trust_code=model.artifact.trust_code,
        )
        for _ in range(number)
    ]
