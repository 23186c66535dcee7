"""Registry of engines: one per artifact format, each with a library imported on first use."""

from __future__ import annotations

from edge.runtime.engines.base import Engine
from edge.runtime.registry import Entry, Registry

ENGINES: Registry[Engine] = Registry(
    "format",
    "edge.runtime.engines.base:Engine",
    {
        "onnx": Entry("edge.runtime.engines.onnx.engine:OnnxEngine", "onnx", ("onnxruntime",)),
        "ctranslate2": Entry(
            "edge.runtime.engines.ctranslate2.engine:CTranslate2Engine",
            "ctranslate2",
            ("ctranslate2",),
        ),
        "gguf": Entry("edge.runtime.engines.gguf.engine:GgufEngine", "gguf", ("llama_cpp",)),
        "torchscript": Entry(
            "edge.runtime.engines.torchscript.engine:TorchScriptEngine", "torchscript", ("torch",)
        ),
    },
)
