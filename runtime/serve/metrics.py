"""What /metrics shows, under Prometheus' naming rules."""

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
    """The figures of one app, in a registry of its own. Labels hold known names only."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        model = ["model"]
        self.requests = Counter(
            "edge_requests", "Requests, by HTTP status.", ["model", "status"], registry=registry
        )
        self.success = Counter(
            "edge_requests_success", "Requests answered.", model, registry=registry
        )
        self.errors = Counter(
            "edge_requests_error",
            "Requests refused or failed.",
            ["model", "kind"],
            registry=registry,
        )
        self.in_flight = Gauge("edge_requests_in_flight", "Requests under way.", registry=registry)
        self.queue_size = Gauge("edge_queue_size", "Texts that wait.", model, registry=registry)
        self.queue_limit = Gauge(
            "edge_queue_limit", "Texts that may wait.", model, registry=registry
        )
        self.workers_busy = Gauge(
            "edge_workers_busy", "Workers that compute.", model, registry=registry
        )
        self.queue_wait = Histogram(
            "edge_queue_wait_seconds",
            "Wait for a worker.",
            model,
            registry=registry,
            buckets=_SECONDS,
        )
        self.request_seconds = Histogram(
            "edge_request_seconds",
            "Whole requests, answered ones.",
            model,
            registry=registry,
            buckets=_SECONDS,
        )
        self.inference = Histogram(
            "edge_inference_seconds",
            "Runs of an engine.",
            model,
            registry=registry,
            buckets=_SECONDS,
        )
        self.token_seconds = Histogram(
            "edge_time_per_token_seconds",
            "An engine's run by its output tokens.",
            model,
            registry=registry,
            buckets=_TOKEN_SECONDS,
        )
        self.batch_texts = Histogram(
            "edge_batch_texts",
            "Texts that one run answered.",
            model,
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.input_tokens = Counter("edge_input_tokens", "Tokens read.", model, registry=registry)
        self.output_tokens = Counter("edge_output_tokens", "Tokens made.", model, registry=registry)
        self.speculative = Counter(
            "edge_speculative_tokens_accepted",
            "Tokens that took no decoder step of their own.",
            model,
            registry=registry,
        )

    def add_model(self, name: str, queue_limit: int) -> None:
        """Show a model's figures from the start, as zeros."""
        self.queue_limit.labels(name).set(queue_limit)
        for metric in (
            self.success, self.queue_size, self.workers_busy, self.queue_wait, self.inference,
            self.request_seconds, self.token_seconds, self.batch_texts, self.input_tokens,
            self.output_tokens, self.speculative,
        ):  # fmt: skip
            metric.labels(name)

    def observe_run(
        self, name: str, seconds: float, answers: Sequence[Generation | EdgeError]
    ) -> None:
        """One run of an engine and the answers it gave."""
        done = [answer for answer in answers if isinstance(answer, Generation)]
        made = sum(answer.output_tokens for answer in done)
        self.inference.labels(name).observe(seconds)
        self.batch_texts.labels(name).observe(len(answers))
        self.input_tokens.labels(name).inc(sum(answer.input_tokens for answer in done))
        self.output_tokens.labels(name).inc(made)
        if made:
            self.token_seconds.labels(name).observe(seconds / made)
        saved = sum(a.output_tokens - a.steps for a in done if a.steps is not None)
        self.speculative.labels(name).inc(max(0, saved))

    def page(self) -> bytes:
        return generate_latest(self.registry)
