"""Repositories for the hub of tests: one laid out like google/flan-t5-small, and data sets."""

from __future__ import annotations

import json
from pathlib import Path

FLAN_T5_SMALL = "google/flan-t5-small"
# Can run code when they are loaded, and must never be fetched.
FOREIGN_WEIGHTS = {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"}
# The files of the repository on the hub, https://huggingface.co/google/flan-t5-small/tree/main.
FLAN_T5_SMALL_FILES = FOREIGN_WEIGHTS | {
    ".gitattributes",
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
}


def flan_t5_small(folder: Path, *, padding: int = 0) -> dict[str, bytes]:
    """The files of the repository, with the weights and the tokenizer of a small local model.

    Args:
        folder: The model folder.
        padding: Bytes of the files that must never be fetched.
    """
    files = dict.fromkeys(FOREIGN_WEIGHTS, b"never to be fetched " * (1 + padding // 20))
    files |= {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nlicense: apache-2.0\n---\n\n# FLAN-T5 small\n",
        "generation_config.json": json.dumps(
            {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
        ).encode(),
        "special_tokens_map.json": json.dumps(
            {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        ).encode(),
        "spiece.model": b"not read where there is a tokenizer.json",
    }
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        files[name] = (folder / name).read_bytes()
    assert set(files) == FLAN_T5_SMALL_FILES
    return files


def folder_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def question_rows(count: int, first: int = 0) -> bytes:
    """JSON lines of made-up questions with a disfluency, and the questions without it."""
    rows = [
        {"input": f"what is uh what is the number {n}", "target": f"what is the number {n}"}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
