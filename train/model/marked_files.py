"""Configurations that begin with a byte order mark, which transformers can't read."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.train.model.generation import GENERATION_CONFIG, MODEL_CONFIG
from edge.train.model.training_record import require_json_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def read_transformers_config(folder: Path) -> PretrainedConfig:
    """transformers' object for a folder's config.json, whose model_type it knows.

    Raises:
        ModelError: The file is missing or not a JSON object.
        Exception: What transformers raises for values of the wrong type.
    """
    from transformers import CONFIG_MAPPING

    values = require_json_object(folder / MODEL_CONFIG)
    config: PretrainedConfig = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    return config


def loading_options(folder: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained` in place of files that begin with a byte order mark.

    Windows editors write it.

    Returns:
        `config` and `generation_config`; empty for a folder without such files.

    Raises:
        ModelError: A file is not a JSON object.
    """
    from transformers import GenerationConfig

    files = [folder / name for name in (GENERATION_CONFIG, MODEL_CONFIG)]
    if not files[-1].is_file():
        return {}
    files = [path for path in files if path.is_file()]
    if not any(_is_marked(path) for path in files):
        return {}
    config = read_transformers_config(folder)
    if files[0].name == GENERATION_CONFIG:
        generation = GenerationConfig.from_dict(require_json_object(files[0]))
    else:
        generation = GenerationConfig.from_model_config(config)
    return {"config": config, "generation_config": generation}


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
