"""Bounded queue of one model: admission, and the choice of requests that run together.

A free worker takes the oldest request. If the engine gains from batches, it also takes waiting
requests that can share the run. No request waits for a batch to fill.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from edge.runtime.serve.errors import ApiError, deadline_error
from edge.runtime.serve.estimate import ActiveClock, RunTimeEstimate
from edge.runtime.serve.metrics import Metrics
from edge.runtime.serve.queued_request import QueuedRequest
from edge.runtime.serve.settings import ServeSettings

# The shortest time without an admission that counts as a problem.
_MIN_LOCKOUT_S = 10.0


@dataclass(eq=False)
class Batch:
    """Requests that run together.

    Attributes:
        requests: The requests.
        started: Start of the run, as of the queue's clock.
    """

    requests: list[QueuedRequest]
    started: float

    @property
    def sequences(self) -> int:
        """Sequences that the engine computes."""
        return sum(queued.sequences for queued in self.requests)


class RequestQueue:
    """Requests of one model that wait or run.

    Event loops submit requests, worker threads take them in batches.

    Args:
        name: The model's name, for metrics.
        workers: Number of workers.
        settings: Queue size and deadline.
        metrics: Counters of the service.
        clock: Measures the runs.
    """

    def __init__(
        self,
        name: str,
        workers: int,
        settings: ServeSettings,
        metrics: Metrics,
        clock: ActiveClock,
    ) -> None:
        self.estimate = RunTimeEstimate()
        self._name = name
        self._workers = workers
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._waiting: deque[QueuedRequest] = deque()
        self._waiting_texts = 0
        self._running: set[Batch] = set()
        self._condition = threading.Condition()
        self._closed = False
        self._last_admitted = time.monotonic()
        self._last_refused = 0.0
        self._refused = 0  # since the last admission
        metrics.add_model(name, settings.queue_size)

    @property
    def texts(self) -> int:
        """Texts that wait."""
        return self._waiting_texts

    @property
    def idle(self) -> bool:
        """Whether no request waits or runs."""
        with self._condition:
            return not self._waiting and not self._running

    # -- called by event loops -------------------------------------------------------------------

    def submit(self, queued: QueuedRequest) -> None:
        """Append a request.

        The estimate of times never refuses a request that a free worker can take at once: it could
        not be corrected without a run.

        Raises:
            ApiError: 429, the queue is full or the request would miss its deadline; 503, closed.
        """
        with self._condition:
            if self._closed:
                raise _closing()
            refusal = self._refusal(queued)
            if refusal is not None:
                self._refused += 1
                self._last_refused = time.monotonic()
                raise refusal
            self._last_admitted = time.monotonic()
            self._refused = 0
            self._metrics.admitted.labels(self._name).inc()
            self._waiting.append(queued)
            self._add_waiting_texts(len(queued.texts))
            self._condition.notify()

    def _refusal(self, queued: QueuedRequest) -> ApiError | None:
        texts = len(queued.texts)
        per_sequence = self.estimate.seconds_per_sequence(self._clock.now())
        ahead = sum(each.sequences for each in self._waiting)
        ahead += sum(batch.sequences for batch in self._running)
        wait = ahead * per_sequence / self._workers
        if self._waiting_texts + texts > self._settings.queue_size:
            return ApiError(
                429,
                "queue_full",
                f"{texts} texts do not fit the queue: it holds {self._waiting_texts} of"
                f" {self._settings.queue_size}. Try again later",
                retry_after=wait,
            )
        starts_at_once = not self._waiting and len(self._running) < self._workers
        answer = per_sequence * queued.sequences
        if not starts_at_once and time.monotonic() + wait + answer > queued.deadline:
            return ApiError(
                429,
                "deadline_unreachable",
                f"the request would miss its deadline: about {wait:.1f} s in the queue"
                f" and {answer:.1f} s to answer. Try again later",
                retry_after=wait,
            )
        return None

    def cancel(self, queued: QueuedRequest) -> None:
        """Drop a request whose client has left or whose deadline has passed."""
        queued.cancelled = True
        with self._condition:
            if queued in self._waiting:
                self._waiting.remove(queued)
                self._add_waiting_texts(-len(queued.texts))

    def _add_waiting_texts(self, texts: int) -> None:
        self._waiting_texts += texts
        self._metrics.queue_size.labels(self._name).set(self._waiting_texts)

    # -- called by workers -----------------------------------------------------------------------

    def next_batch(self, max_texts: int) -> Batch | None:
        """Wait for the next requests to run together; None once the queue is closed."""
        with self._condition:
            while True:
                while not self._waiting and not self._closed:
                    self._condition.wait()
                if not self._waiting:
                    return None
                first = self._waiting.popleft()
                self._add_waiting_texts(-len(first.texts))
                if first.expired:
                    first.set_exception(deadline_error(first.timeout))
                    continue
                batch = Batch([first, *self._take_matching(first, max_texts)], self._clock.now())
                self._running.add(batch)
                self._metrics.workers_busy.labels(self._name).set(len(self._running))
                return batch

    def _take_matching(self, first: QueuedRequest, max_texts: int) -> list[QueuedRequest]:
        # Leave the idle workers their part of the queue.
        idle = self._workers - len(self._running) - 1
        fair_part = -(-(self._waiting_texts + 1) // (idle + 1))
        capacity = min(max_texts, fair_part) - len(first.texts)
        taken: list[QueuedRequest] = []
        for queued in list(self._waiting):
            if capacity <= 0:
                break
            texts = len(queued.texts)
            if texts <= capacity and first.can_share_batch(queued) and not queued.expired:
                taken.append(queued)
                self._waiting.remove(queued)
                self._add_waiting_texts(-texts)
                capacity -= texts
        return taken

    def finish(self, batch: Batch) -> None:
        """Free the worker that ran a batch."""
        with self._condition:
            self._running.discard(batch)
            self._metrics.workers_busy.labels(self._name).set(len(self._running))

    # -- state -----------------------------------------------------------------------------------

    def running_longer_than(self, seconds: float) -> int:
        """Number of batches that have been running for longer."""
        with self._condition:
            oldest = self._clock.now() - seconds
            return sum(batch.started < oldest for batch in self._running)

    def lockout(self) -> str | None:
        """A sentence if requests keep being refused and none has been admitted for a while."""
        limit = max(self._settings.deadline, _MIN_LOCKOUT_S)
        with self._condition:
            since_admission = time.monotonic() - self._last_admitted
            recent = self._refused and time.monotonic() - self._last_refused < limit
            if recent and self._last_refused - self._last_admitted > limit:
                return (
                    f"no request was admitted for {since_admission:.0f} s;"
                    f" {self._refused} were refused"
                )
        return None

    def close(self) -> None:
        """Fail the waiting requests, and let the workers end after their current runs."""
        with self._condition:
            self._closed = True
            for queued in self._waiting:
                queued.set_exception(_closing())
            self._waiting.clear()
            self._add_waiting_texts(-self._waiting_texts)
            self._condition.notify_all()


def _closing() -> ApiError:
    return ApiError(503, "closing", "the service is closing", retry_after=5)
