"""Answers and log-probabilities of an artifact as JSON; run by the emulated Python.

Needs edge.runtime, numpy, tokenizers and the engine's library, nothing else.

    python arm64_answers.py ARTIFACT < {"texts": […], "targets": […] or null}
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any

from edge.runtime import load
from edge.runtime.platform.cpu import cpu_info

LIBRARIES = {"onnx": "onnxruntime", "ctranslate2": "ctranslate2", "torchscript": "torch"}
FEW = 4  # rows that are also answered with beams and with drafts


def answer(folder: str, texts: list[str], targets: list[str] | None) -> dict[str, Any]:
    """Greedy answers, also with drafts from the input, beams, and the targets' log-probabilities.

    Targets of None are the greedy answers.
    """
    with load(folder, threads=1, trust_code=True) as model:
        greedy = [found.text for found in model.generate(texts)]
        scores = model.score(texts, targets or greedy)
        library = importlib.import_module(LIBRARIES[model.artifact.manifest.format])
        found = {
            "greedy": greedy,
            "log_probs": [[float(value) for value in row] for row in scores],
            "beams": [found.text for found in model.generate(texts[:FEW], num_beams=4)],
        }
        if library.__name__ == "onnxruntime":
            lookup = {"prompt_lookup_num_tokens": 8}
            found["drafts"] = [model.generate(text, **lookup).text for text in texts[:FEW]]
    name, features = cpu_info()
    return found | {
        "machine": platform.machine(),
        "cpu": name,
        "features": sorted(features),
        "version": library.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1], **json.load(sys.stdin))))
