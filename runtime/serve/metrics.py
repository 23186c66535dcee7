"""Prometheus metrics of the service, for `/metrics`."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from edge.runtime.errors import EdgeError
from edge.runtime.generation import Generation

_SECONDS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOKEN_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1)


class Metrics:
    """Metrics of one app, in a separate registry.

    Labels hold only names that the service knows, so that clients can't add time series.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        model = ["model"]
        self.requests = self._counter(
            "edge_requests", "Requests, by HTTP status.", ["model", "status"]
        )
        self.success = self._counter("edge_requests_success", "Requests answered.", model)
        self.errors = self._counter(
            "edge_requests_error", "Requests refused or failed.", ["model", "kind"]
        )
        self.admitted = self._counter(
            "edge_requests_admitted", "Requests admitted to the queue.", model
        )
        self.worker_restarts = self._counter(
            "edge_worker_restarts", "Workers that died and were replaced.", model
        )
        self.in_flight = Gauge(
            "edge_requests_in_flight", "Requests in progress.", registry=self.registry
        )
        self.queue_size = self._gauge("edge_queue_size", "Texts in the queue.")
        self.queue_limit = self._gauge("edge_queue_limit", "Capacity of the queue, in texts.")
        self.workers_busy = self._gauge("edge_workers_busy", "Busy workers.")
        self.queue_wait = self._histogram("edge_queue_wait_seconds", "Time in the queue.")
        self.request_seconds = self._histogram(
            "edge_request_seconds", "Duration of answered requests."
        )
        self.inference = self._histogram("edge_inference_seconds", "Duration of engine runs.")
        self.token_seconds = self._histogram(
            "edge_time_per_token_seconds",
            "Duration of an engine run divided by its output tokens.",
            _TOKEN_SECONDS,
        )
        self.batch_texts = self._histogram(
            "edge_batch_texts", "Texts per engine run.", (1, 2, 4, 8, 16, 32, 64)
        )
        self.input_tokens = self._counter("edge_input_tokens", "Input tokens.", model)
        self.output_tokens = self._counter("edge_output_tokens", "Output tokens.", model)
        self.speculative = self._counter(
            "edge_speculative_tokens_accepted", "Drafted tokens that were accepted.", model
        )

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model"], registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float | str] = _SECONDS
    ) -> Histogram:
        return Histogram(name, text, ["model"], registry=self.registry, buckets=buckets)

    def add_model(self, name: str, queue_limit: int) -> None:
        """Create a model's time series, so that they appear as zeros from the start."""
        self.queue_limit.labels(name).set(queue_limit)
        for metric in (
            self.success, self.queue_size, self.workers_busy, self.queue_wait, self.inference,
            self.request_seconds, self.token_seconds, self.batch_texts, self.input_tokens,
            self.output_tokens, self.speculative, self.admitted, self.worker_restarts,
        ):  # fmt: skip
            metric.labels(name)

    def observe_run(
        self, name: str, seconds: float, answers: Sequence[Generation | EdgeError]
    ) -> None:
        """Record one run of a model's engine and its answers."""
        done = [answer for answer in answers if isinstance(answer, Generation)]
        output_tokens = sum(answer.output_tokens for answer in done)
        self.inference.labels(name).observe(seconds)
        self.batch_texts.labels(name).observe(len(answers))
        self.input_tokens.labels(name).inc(sum(answer.input_tokens for answer in done))
        self.output_tokens.labels(name).inc(output_tokens)
        if output_tokens:
            self.token_seconds.labels(name).observe(seconds / output_tokens)
        accepted = sum(a.output_tokens - a.steps for a in done if a.steps is not None)
        self.speculative.labels(name).inc(max(0, accepted))

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
