"""Requests to an artifact that is measured from text to text, as `edge bench ARTIFACT` does."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

from .spec import Spec


def open_artifact(spec: Spec) -> Any:
    """Load the artifact in `spec.cache` as an `edge.runtime.Model`."""
    from edge.runtime.model import load

    model = load(spec.cache, threads=spec.threads, trust_code=spec.trust_code)
    # The libraries' objects stay alive: the collection before every turn need not scan them.
    gc.freeze()
    return model


def respond(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request, whose `do` is "time_calls", "generate" or "score".

    Raises:
        ValueError: an unknown `do`.
    """
    options = request.get("options", {})
    match request["do"]:
        case "time_calls":
            from edge.bench.timing.timed_calls import time_calls

            return time_calls(model, request["calls"], **options).as_json()
        case "generate":
            answers = model.generate(request["texts"], fields=request["fields"], **options)
            return {"answers": [dataclasses.asdict(answer) for answer in answers]}
        case "score":
            found = model.score(
                request["inputs"], request["targets"], fields=request["fields"], **options
            )
            # A float32 survives the way through float64 and decimals exactly.
            return {"log_probs": [row.tolist() for row in found]}
        case unknown:
            raise ValueError(f"unknown request {unknown!r}")
