"""The runtime that an app embeds: open an artifact folder and generate text on the CPU.

    from edge.runtime import load

    with load("my-artifact") as model:
        print(model.generate("what is the uh the capital of France").text)

Importing the package is cheap: numpy, the tokenizer and the engine's library are imported with the
first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.runtime.artifact import Artifact
    from edge.runtime.errors import (
        ArtifactError,
        ConstraintError,
        EdgeError,
        InputTooLongError,
        MissingExtraError,
        OutputError,
        UnsupportedError,
        UsageError,
    )
    from edge.runtime.generation import Generation, Timings
    from edge.runtime.guardrails import Guardrails
    from edge.runtime.model import Model, load
    from edge.runtime.options import GenerationOptions
    from edge.runtime.rows import Prompt
    from edge.runtime.text.output_checks import JsonOutput, RegexOutput
    from edge.runtime.text.streaming import Stream
    from edge.runtime.text2text import Text2TextPipeline, pipeline

    __version__: str

_MODULES = {
    "Artifact": "artifact",
    "ArtifactError": "errors",
    "ConstraintError": "errors",
    "EdgeError": "errors",
    "Generation": "generation",
    "GenerationOptions": "options",
    "Guardrails": "guardrails",
    "InputTooLongError": "errors",
    "JsonOutput": "text.output_checks",
    "MissingExtraError": "errors",
    "Model": "model",
    "OutputError": "errors",
    "Prompt": "rows",
    "RegexOutput": "text.output_checks",
    "Stream": "text.streaming",
    "Text2TextPipeline": "text2text",
    "Timings": "generation",
    "UnsupportedError": "errors",
    "UsageError": "errors",
    "load": "model",
    "pipeline": "text2text",
}

__all__ = [
    "Artifact",
    "ArtifactError",
    "ConstraintError",
    "EdgeError",
    "Generation",
    "GenerationOptions",
    "Guardrails",
    "InputTooLongError",
    "JsonOutput",
    "MissingExtraError",
    "Model",
    "OutputError",
    "Prompt",
    "RegexOutput",
    "Stream",
    "Text2TextPipeline",
    "Timings",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "load",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from edge.runtime.version import edge_version

        return edge_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
