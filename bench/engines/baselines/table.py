"""The peers by name."""

from __future__ import annotations

from .hugging_face import export_optimum, optimum, quantize_optimum, transformers_eager
from .native import convert_ctranslate2, ctranslate2, llama, write_gguf
from .openvino_engine import compress, openvino
from .own import edge, libraries, publish
from .spec import Peer
from .text import open_artifact, respond

_HF = ("torch", "transformers")
_OPTIMUM = ("optimum", "onnxruntime", *_HF)
_LLAMA = ("llama_cpp",)
_OPENVINO = ("openvino", "nncf")

PEERS: dict[str, Peer] = {
    "transformers-float32": Peer("transformers", "float32", 32, _HF, transformers_eager("float32")),
    "transformers-bfloat16": Peer(
        "transformers", "bfloat16", 16, _HF, transformers_eager("bfloat16")
    ),
    "torch-int8": Peer(
        "torch dynamic int8", "int8", 8, _HF, transformers_eager("float32", quantized=True)
    ),
    "ctranslate2-int8": Peer(
        "CTranslate2", "int8", 8, ("ctranslate2",), ctranslate2, convert_ctranslate2
    ),
    "llama-q8_0": Peer("llama.cpp", "Q8_0", 8, _LLAMA, llama, write_gguf("q8_0")),
    "llama-q4_0": Peer("llama.cpp", "Q4_0", 4, _LLAMA, llama, write_gguf("q4_0")),
    "llama-q4_k_m": Peer("llama.cpp", "Q4_K_M", 4, _LLAMA, llama, write_gguf("q4_k_m")),
    "optimum-float32": Peer(
        "Optimum ONNX", "float32", 32, _OPTIMUM, optimum, export_optimum, separate=True
    ),
    "optimum-int8": Peer(
        "Optimum ONNX",
        "int8",
        8,
        _OPTIMUM,
        optimum,
        quantize_optimum,
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int8": Peer(
        "OpenVINO",
        "int8",
        8,
        _OPENVINO,
        openvino,
        compress(8),
        separate=True,
        made_from="optimum-float32",
    ),
    "openvino-int4": Peer(
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


def engine_of(name: str, target: str) -> Peer:
    """The peer of that name, or our own engine for artifacts of `target`, asked for ids or text."""
    if name == OWN:
        return Peer(OWN, "", 0, libraries(target), edge, publish)
    if name == TEXT:
        return Peer(TEXT, "", 0, libraries(target), open_artifact, respond=respond)
    return PEERS[name]
