"""transformers' pipelines on a model folder; run by the Python of Optimum's environment.

Usage: run_pipeline.py CALLS > RESULTS (JSON). CALLS: {"model": folder, "calls": [[task,
{argument: value, …}, [text, …]], …]}. RESULTS: for each call what the pipeline returned, with lists
in place of tensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import transformers
from transformers import pipeline
from transformers.utils import logging

logging.set_verbosity_error()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def main() -> None:
    assert transformers.__version__.startswith("4.57"), transformers.__version__
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    pipelines: dict[str, Any] = {}
    results = []
    for task, arguments, texts in wanted["calls"]:
        if task not in pipelines:
            pipelines[task] = pipeline(task, model=wanted["model"], device=-1)
        results.append(_plain(pipelines[task](texts, **arguments)))
    print(json.dumps(results))


main()
