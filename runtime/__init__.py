"""What an app embeds: open an artifact folder and generate text on the CPU.

    from edge.runtime import load

    with load("my-artifact") as model:
        print(model.generate("what is the uh the capital of France").text)

Importing this package costs next to nothing: numpy, the tokenizer and the engine's library come
with the first name that is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.runtime.artifact import Artifact
    from edge.runtime.errors import EdgeError, OutputError
    from edge.runtime.generation import Generation, Timings
    from edge.runtime.guardrails import Guardrails
    from edge.runtime.model import Model, load
    from edge.runtime.options import GenerationOptions
    from edge.runtime.text.output_checks import JsonOutput, RegexOutput

_HOMES = {
    "Artifact": "artifact",
    "EdgeError": "errors",
    "Generation": "generation",
    "GenerationOptions": "options",
    "Guardrails": "guardrails",
    "JsonOutput": "output",
    "Model": "model",
    "OutputError": "errors",
    "RegexOutput": "output",
    "Timings": "generation",
    "load": "model",
}

__all__ = [
    "Artifact",
    "EdgeError",
    "Generation",
    "GenerationOptions",
    "Guardrails",
    "JsonOutput",
    "Model",
    "OutputError",
    "RegexOutput",
    "Timings",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"edge.runtime.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
