"""How to install an extra: the command, and the extra of each library."""

from __future__ import annotations

import shlex
from typing import Any

DISTRIBUTION = "edge-t5"
# Import name of a library → the extras that install it, the smallest first.
EXTRAS_OF: dict[str, tuple[str, ...]] = {
    "accelerate": ("train",),
    "bitsandbytes": ("qlora",),
    "ctranslate2": ("ctranslate2", "export-ctranslate2", "export"),
    "datasets": ("train",),
    "fastapi": ("serve",),
    "gguf": ("export-gguf",),
    "huggingface_hub": ("hub", "export-torchscript", "export"),
    "jinja2": ("bench",),
    "jsonschema": ("schema", "bench"),
    "llama_cpp": ("gguf", "export-gguf"),
    "llguidance": ("constrained",),
    "matplotlib": ("plots", "bench"),
    "onnx": ("export-onnx", "export"),
    "onnxruntime": ("onnx", "export-onnx", "export"),
    "pandas": ("ray",),
    "peft": ("train",),
    "plotext": ("curves", "train"),
    "prometheus_client": ("serve",),
    "psutil": ("train",),
    "pyarrow": ("parquet", "ray"),
    "pydantic": ("bench",),
    "pytest_benchmark": ("bench",),
    "ray": ("ray",),
    "rouge_score": ("bench", "train"),
    "sacrebleu": ("bench", "train"),
    "safetensors": ("export-torchscript", "export", "train"),
    "sentencepiece": ("export-torchscript", "export"),
    "tensorboard": ("tensorboard",),
    "torch": ("torchscript", "export", "train"),
    "transformers": ("export", "train"),
    "uvicorn": ("serve",),
    "yaml": ("train",),
}


def extra_for(library: str, preferred: str = "") -> str | None:
    """The extra that installs a library, or None for a library of no extra.

    Args:
        library: Import name, such as "llama_cpp".
        preferred: Taken if it installs the library.
    """
    extras = EXTRAS_OF.get(library.partition(".")[0])
    if extras is None:
        return None
    return preferred if preferred in extras else extras[0]


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation.

    It names the checkout, file or repository that edge was installed from, as recorded by pip in
    direct_url.json (https://packaging.python.org/en/latest/specifications/direct-url/). An
    installation from a package index has no such record, and the name alone is enough.
    """
    from urllib.parse import unquote, urlsplit

    record = _direct_url()
    url = record.get("url")
    if not isinstance(url, str):
        return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extra}]')}"
    if isinstance(record.get("dir_info"), dict):
        folder = unquote(urlsplit(url).path)
        editable = "-e " if record["dir_info"].get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{folder}[{extra}]')}"
    vcs = record.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}".rstrip("@")
    return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extra}] @ {url}')}"


def _direct_url() -> dict[str, Any]:
    """The record of where edge was installed from; empty if there is none."""
    import json
    from importlib import metadata

    # The egg-info of a checkout that is the current folder comes first, and has no record.
    for found in metadata.distributions(name=DISTRIBUTION):
        try:
            record = json.loads(found.read_text("direct_url.json") or "{}")
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record:
            return record
    return {}
