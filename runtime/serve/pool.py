"""One artifact's bounded queue and the workers behind it.

A worker that becomes free takes the oldest job, and with it, where the engine gains by batches,
those waiting that can share its run. Nobody waits for a batch to fill.
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
from edge.runtime.serve.autobatch import Measured, measure
from edge.runtime.serve.errors import ApiError, deadline_error
from edge.runtime.serve.jobs import QueuedRequest, Served
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.settings import ServeSettings

_LOG = logging.getLogger("edge.serve")
# How much the newest run counts in the mean time of a text.
_NEWEST = 0.1


class Pool:
    """The workers of one artifact. Jobs come from event loops and are answered by threads."""

    def __init__(self, name: str, model: Model, settings: ServeSettings, metrics: Metrics) -> None:
        """Start the workers; `ready` is set once the first has warmed the engine up."""
        self.name = name
        self.model = model
        self.workers = settings.workers or _default_workers(model)
        self.max_batch = settings.max_batch or 1
        self.ready = threading.Event()
        self._settings = settings
        self._metrics = metrics
        self._waiting: deque[QueuedRequest] = deque()
        self._texts_waiting = 0
        self._condition = threading.Condition()
        self._busy = 0
        self._closed = False
        self._seconds_per_text = 0.0
        self._copies = [] if model.engine.concurrent else _copies(model, self.workers - 1)
        models = [model, *self._copies]
        metrics.add_model(name, settings.queue_size)
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(models[worker % len(models)], worker == 0),
                name=f"edge-{name}-{worker}",
                daemon=True,
            )
            for worker in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    # -- the queue -------------------------------------------------------------------------------

    def submit(self, job: QueuedRequest) -> None:
        """Put a job into the queue.

        Raises:
            ApiError: 429, the queue is full or the job would miss its deadline; 503, closed.
        """
        texts = len(job.texts)
        with self._condition:
            if self._closed:
                raise ApiError(503, "closing", "the service is closing", retry_after=5)
            wait = self._wait_for(self._texts_waiting + self._busy)
            if self._texts_waiting + texts > self._settings.queue_size:
                raise ApiError(
                    429,
                    "queue_full",
                    f"{self._texts_waiting} texts wait already, of {self._settings.queue_size}",
                    retry_after=wait,
                )
            if time.monotonic() + wait + self._seconds_per_text * texts > job.deadline:
                raise ApiError(
                    429,
                    "deadline_unreachable",
                    f"the queue would take about {wait:.1f} s, longer than the request may",
                    retry_after=wait,
                )
            self._waiting.append(job)
            self._count(texts)
            self._condition.notify()

    def cancel(self, job: QueuedRequest) -> None:
        """Drop a job whose client has left or whose deadline has passed."""
        job.cancelled = True
        with self._condition:
            if job in self._waiting:
                self._waiting.remove(job)
                self._count(-len(job.texts))

    @property
    def idle(self) -> bool:
        with self._condition:
            return not self._waiting and not self._busy

    @property
    def texts_waiting(self) -> int:
        return self._texts_waiting

    def _wait_for(self, texts_ahead: int) -> float:
        """Seconds until a worker is free for what comes after so many texts."""
        return texts_ahead * self._seconds_per_text / self.workers

    def _count(self, texts: int) -> None:
        self._texts_waiting += texts
        self._metrics.queue_size.labels(self.name).set(self._texts_waiting)

    def _take(self) -> list[QueuedRequest]:
        """The next jobs to run together; none when the pool has closed."""
        with self._condition:
            while True:
                while not self._waiting and not self._closed:
                    self._condition.wait()
                if not self._waiting:
                    return []
                first = self._waiting.popleft()
                self._count(-len(first.texts))
                if first.expired:
                    first.fail(deadline_error(self._settings.deadline))
                    continue
                jobs = [first, *self._companions(first)]
                self._busy += 1
                self._metrics.workers_busy.labels(self.name).set(self._busy)
                return jobs

    def _companions(self, first: QueuedRequest) -> list[QueuedRequest]:
        # Those that an idle worker is about to take are left to it.
        idle = self.workers - self._busy - 1
        room = min(self.max_batch, -(-(self._texts_waiting + 1) // (idle + 1))) - len(first.texts)
        found: list[QueuedRequest] = []
        for job in list(self._waiting):
            if room <= 0:
                break
            if len(job.texts) <= room and first.shares_with(job) and not job.expired:
                found.append(job)
                self._waiting.remove(job)
                self._count(-len(job.texts))
                room -= len(job.texts)
        return found

    # -- the workers -----------------------------------------------------------------------------

    def _work(self, model: Model, first: bool) -> None:
        if first:
            self._warm_up(model)
        self.ready.wait()
        while jobs := self._take():
            try:
                self._answer(model, jobs)
            except Exception as error:
                for job in jobs:
                    job.fail(error)
                if not isinstance(error, EdgeError | ApiError):
                    _LOG.exception("a worker of %s failed", self.name)
            finally:
                with self._condition:
                    self._busy -= 1
                    self._metrics.workers_busy.labels(self.name).set(self._busy)

    def _warm_up(self, model: Model) -> None:
        measured = Measured(1, 0.0)
        try:
            measured = measure(model, largest=self._settings.max_batch)
        except Exception:
            _LOG.exception("%s could not be warmed up", self.name)
        self.max_batch = self._settings.max_batch or measured.batch
        self._seconds_per_text = measured.seconds_per_text
        self.ready.set()

    def _answer(self, model: Model, jobs: Sequence[QueuedRequest]) -> None:
        started = time.monotonic()
        for job in jobs:
            self._metrics.queue_wait.labels(self.name).observe(started - job.queued_at)
        first = jobs[0]
        if first.streams_pieces and model.guardrails.output is None:
            answers = self._stream(model, first)
        else:
            answers = self._generate(model, jobs)
        seconds = time.monotonic() - started
        self._metrics.observe_run(self.name, seconds, answers)
        with self._condition:
            newest = seconds / len(answers)
            before = self._seconds_per_text or newest
            self._seconds_per_text = before + _NEWEST * (newest - before)
        rest = iter(answers)
        for job in jobs:
            job.finish(
                Served(
                    [next(rest) for _ in job.texts],
                    queue_ms=(started - job.queued_at) * 1000,
                    engine_ms=seconds * 1000,
                    shared=len(answers),
                )
            )

    def _generate(
        self, model: Model, jobs: Sequence[QueuedRequest]
    ) -> list[Generation | EdgeError]:
        def before_batch() -> None:
            if all(job.cancelled or job.expired for job in jobs):
                raise deadline_error(self._settings.deadline)

        return model.generate_each(
            [text for job in jobs for text in job.texts],
            fields=[own for job in jobs for own in job.fields],
            on_long=jobs[0].on_long,
            batch_size=max(1, self.max_batch),
            before_batch=before_batch,
            **jobs[0].given,
        )

    def _stream(self, model: Model, job: QueuedRequest) -> list[Generation | EdgeError]:
        [text], [fields] = job.texts, job.fields
        try:
            stream = model.stream(text, fields=fields, on_long=job.on_long, **job.given)
        except InputTooLongError as error:
            if (job.on_long or model.guardrails.on_long) == "error":
                return [error]
            return self._generate(model, [job])  # in parts, or by the fallback
        with stream:
            for piece in stream:
                if job.cancelled or job.expired:
                    raise deadline_error(self._settings.deadline)
                job.emit(piece)
        return [stream.result]

    def close(self) -> None:
        """Refuse what comes, fail what waits, and wait for what runs."""
        with self._condition:
            self._closed = True
            for job in self._waiting:
                job.fail(ApiError(503, "closing", "the service is closing", retry_after=5))
            self._waiting.clear()
            self._count(-self._texts_waiting)
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        for model in self._copies:
            model.close()


def _default_workers(model: Model) -> int:
    if not model.engine.concurrent:
        return 1
    return max(1, usable_cores() // model.engine.threads)


def _copies(model: Model, number: int) -> list[Model]:
    return [
        load(model.artifact.folder, threads=model.engine.threads, guardrails=model.guardrails)
        for _ in range(number)
    ]
