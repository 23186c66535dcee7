"""The worker that runs one candidate: it answers rows one at a time and times each.

    argument     {"folder": artifact, "threads": 1, "settings": {…}, "draft_tokens": 0,
                  "trust_code": whether this search exported it}
    line in      {"texts": […], "fields": […]}
    line out     {"ms": […], "answers": […], "new_tokens": […], "truncated": n, "peak_rss": bytes}

The first row of each line is answered once before, untimed, to warm the caches.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any

from edge.bench.compiler.worker import Answer, Values, run_program
from edge.bench.engines.baselines.child import peak_rss
from edge.bench.timing.interleaved import garbage_collection_paused
from edge.runtime.artifact.text_fingerprint import check_text_path
from edge.runtime.generation import Generation
from edge.runtime.model import Model, load


def _start(argument: Values) -> tuple[Values, Answer]:
    started = time.perf_counter()
    model = load(
        argument["folder"],
        threads=argument["threads"],
        settings=argument["settings"],
        verify=False,
        trust_code=argument["trust_code"],
    )
    loaded = (time.perf_counter() - started) * 1000
    check_text_path(model.artifact)

    def answer(asked: Mapping[str, Any]) -> Values:
        return _timed(model, asked, argument["draft_tokens"])

    return {"load_ms": loaded}, answer


def _timed(model: Model, asked: Mapping[str, Any], draft_tokens: int) -> Values:
    rows = list(zip(asked["texts"], asked["fields"], strict=True))

    def generate(text: str, fields: Mapping[str, Any]) -> Generation:
        answer: Generation = model.generate(
            text,
            fields=fields,
            on_long="truncate",
            num_beams=1,
            do_sample=False,
            prompt_lookup_num_tokens=draft_tokens,
        )
        return answer

    generate(*rows[0])
    times, found = [], []
    gc.collect()
    with garbage_collection_paused():
        for text, fields in rows:
            started = time.perf_counter()
            one = generate(text, fields)
            times.append((time.perf_counter() - started) * 1000)
            found.append(one)
    return {
        "ms": times,
        "answers": [one.text for one in found],
        "new_tokens": [one.output_tokens for one in found],
        "truncated": sum(one.truncated for one in found),
        "peak_rss": peak_rss(),
    }


if __name__ == "__main__":
    run_program(_start, vital=False)
