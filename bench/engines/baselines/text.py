"""An artifact asked for text: what `edge bench ARTIFACT --data` measures, one process each."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

from .spec import Spec


def open_artifact(spec: Spec) -> Any:
    """The artifact in `spec.cache` as a `Model`."""
    from edge.runtime.model import load

    model = load(spec.cache, threads=spec.threads)
    # A library's many thousands of objects stay: the collection before every turn passes them by.
    gc.freeze()
    return model


def respond(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request, whose `do` is "turn", "generate" or "score"."""
    options = asked.get("options", {})
    match asked["do"]:
        case "turn":
            from edge.bench.timing.timed_calls import as_fields, time_calls

            return as_fields(time_calls(model, asked["calls"], **options))
        case "generate":
            answers = model.generate(asked["texts"], fields=asked["fields"], **options)
            return {"answers": [dataclasses.asdict(answer) for answer in answers]}
        case "score":
            found = model.score(
                asked["inputs"], asked["targets"], fields=asked["fields"], **options
            )
            # float32 to float64 and its shortest decimals and back: exactly the same number.
            return {"log_probs": [row.tolist() for row in found]}
        case unknown:
            raise ValueError(f"unknown request {unknown!r}")
