"""The files that CTranslate2 loads: the checked model, and vocabularies made from the ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import TokenIds, Vocabulary
from edge.runtime.engines.ctranslate2.model_file import read_model_file
from edge.runtime.engines.ctranslate2.variables import check_variables
from edge.runtime.errors import ArtifactError

MODEL_NAME = "model.bin"


def target_name(token: int) -> str:
    """The name of an id in outputs."""
    return str(token)


def source_names(rows: Sequence[TokenIds]) -> list[list[str]]:
    """The names of the ids of each input."""
    return [[f"source {token}" for token in row] for row in rows]


def model_files(artifact: Artifact, vocabulary: Vocabulary, path: Path) -> dict[str, bytes]:
    """The checked model file for CTranslate2, and the other files, made from the manifest.

    config.json and the vocabulary in the folder are for use with CTranslate2 alone; they are not
    read.

    Raises:
        ArtifactError: The file can't be read, is damaged, or does not match the manifest.
    """
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    check_variables(read_model_file(weights, path), artifact.manifest, path)
    config = {
        "add_source_bos": False,
        "add_source_eos": False,
        "bos_token": target_name(vocabulary.start),
        "eos_token": target_name(vocabulary.eos),
        "unk_token": target_name(vocabulary.pad),  # never used: no name is unknown
        "decoder_start_token": target_name(vocabulary.start),
        "layer_norm_epsilon": artifact.manifest.architecture.layer_norm_epsilon,
        "multi_query_attention": False,
    }
    ids = range(vocabulary.size)
    values = {
        "config.json": config,
        "source_vocabulary.json": source_names([ids])[0],
        "target_vocabulary.json": [target_name(token) for token in ids],
    }
    files = {name: json.dumps(value).encode() for name, value in values.items()}
    return {MODEL_NAME: weights, **files}
