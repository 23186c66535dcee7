"""The baselines by name."""

from __future__ import annotations

from .hugging_face import export_optimum, optimum, quantize_optimum, transformers_eager
from .native import convert_ctranslate2, ctranslate2, llama, write_gguf
from .openvino_engine import compress, openvino
from .own import edge, libraries, publish
from .spec import Baseline
from .text import open_artifact, respond

_HF = ("torch", "transformers")
_OPTIMUM = ("optimum", "onnxruntime", *_HF)
_LLAMA = ("llama_cpp",)
_OPENVINO = ("openvino", "nncf")

BASELINES: dict[str, Baseline] = {
    "transformers-float32": Baseline(
        "transformers", "float32", 32, _HF, transformers_eager("float32")
    ),
    "transformers-bfloat16": Baseline(
        "transformers", "bfloat16", 16, _HF, transformers_eager("bfloat16")
    ),
    "torch-int8": Baseline(
        "torch dynamic int8", "int8", 8, _HF, transformers_eager("float32", quantized=True)
    ),
    "ctranslate2-int8": Baseline(
        "CTranslate2", "int8", 8, ("ctranslate2",), ctranslate2, convert_ctranslate2
    ),
    "llama-q8_0": Baseline("llama.cpp", "Q8_0", 8, _LLAMA, llama, write_gguf("q8_0")),
    "llama-q4_0": Baseline("llama.cpp", "Q4_0", 4, _LLAMA, llama, write_gguf("q4_0")),
    "llama-q4_k_m": Baseline("llama.cpp", "Q4_K_M", 4, _LLAMA, llama, write_gguf("q4_k_m")),
    "optimum-float32": Baseline(
        "Optimum ONNX", "float32", 32, _OPTIMUM, optimum, export_optimum, separate=True
    ),
    "optimum-int8": Baseline(
        "Optimum ONNX",
        "int8",
        8,
        _OPTIMUM,
        optimum,
        quantize_optimum,
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int8": Baseline(
        "OpenVINO",
        "int8",
        8,
        _OPENVINO,
        openvino,
        compress(8),
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int4": Baseline(
        "OpenVINO",
        "int4",
        4,
        _OPENVINO,
        openvino,
        compress(4),
        separate=True,
        made_from="optimum-float32",
    ),
}
OWN = "edge"
TEXT = "text"


def engine_of(name: str, target: str) -> Baseline:
    """The baseline of that name, or our own engine for artifacts of `target`, asked for ids or text."""
    if name == OWN:
        return Baseline(OWN, "", 0, libraries(target), edge, publish)
    if name == TEXT:
        return Baseline(TEXT, "", 0, libraries(target), open_artifact, respond=respond)
    return BASELINES[name]
