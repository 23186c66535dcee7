"""Table of the baselines, by name."""

from __future__ import annotations

from .edge_artifact import libraries_of, load_artifact, publish
from .hugging_face import export_optimum, load_optimum, load_transformers, quantize_optimum
from .native import convert_ctranslate2, load_ctranslate2, load_llama, write_gguf
from .openvino_engine import compress, load_openvino
from .spec import Baseline
from .text_to_text import open_artifact, respond

_HF = ("torch", "transformers")
_OPTIMUM = ("optimum", "onnxruntime", *_HF)
_OPENVINO = ("openvino", "nncf")


def _llama(quantization: str, bits: int) -> Baseline:
    write = write_gguf(quantization.lower())
    return Baseline(
        "llama.cpp", quantization, bits, ("llama_cpp",), load_llama, write, batches=False
    )


BASELINES: dict[str, Baseline] = {
    "transformers-float32": Baseline(
        "transformers", "float32", 32, _HF, load_transformers("float32")
    ),
    "transformers-bfloat16": Baseline(
        "transformers", "bfloat16", 16, _HF, load_transformers("bfloat16")
    ),
    "torch-int8": Baseline(
        "torch dynamic int8", "int8", 8, _HF, load_transformers("float32", quantized=True)
    ),
    "ctranslate2-int8": Baseline(
        "CTranslate2", "int8", 8, ("ctranslate2",), load_ctranslate2, convert_ctranslate2
    ),
    "llama-q8_0": _llama("Q8_0", 8),
    "llama-q4_0": _llama("Q4_0", 4),
    "llama-q4_k_m": _llama("Q4_K_M", 4),
    "optimum-float32": Baseline(
        "Optimum ONNX", "float32", 32, _OPTIMUM, load_optimum, export_optimum, separate=True
    ),
    "optimum-int8": Baseline(
        "Optimum ONNX",
        "int8",
        8,
        _OPTIMUM,
        load_optimum,
        quantize_optimum,
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int8": Baseline(
        "OpenVINO",
        "int8",
        8,
        _OPENVINO,
        load_openvino,
        compress(8),
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int4": Baseline(
        "OpenVINO",
        "int4",
        4,
        _OPENVINO,
        load_openvino,
        compress(4),
        separate=True,
        made_from="optimum-float32",
    ),
}
EDGE = "edge"  # an artifact of edge, from ids to ids
TEXT = "text"  # an artifact of edge, from text to text


def engine_of(name: str, target: str) -> Baseline:
    """The baseline `name`, or edge's engine for artifacts of `target` if it is EDGE or TEXT."""
    if name == EDGE:
        return Baseline(EDGE, "", 0, libraries_of(target), load_artifact, publish)
    if name == TEXT:
        return Baseline(TEXT, "", 0, libraries_of(target), open_artifact, respond=respond)
    return BASELINES[name]
