"""The files beside the graphs in the hub layout: configuration, generation settings, tokenizer.

They come from the source folder and are written so that transformers 4 (which Optimum needs),
transformers 5 and transformers.js all read them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.export.model_folder import read_config
from edge.export.source import SourceModel
from edge.runtime.errors import UsageError
from edge.runtime.options import GenerationOptions

CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
_COPIED = ("special_tokens_map.json", "added_tokens.json", "spiece.model")
# A T5's config.json may omit these; transformers.js does not know the defaults.
_SHAPE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers")
_TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
# Options that generate() of Optimum and transformers.js does not read from a file.
_NOT_STORED = ("seed", "stop_strings", "prompt_lookup_num_tokens")


def check_generation(options: GenerationOptions) -> None:
    """Reject generation defaults that generation_config.json does not support.

    Raises:
        UsageError: names them.
    """
    unsupported = [name for name in _NOT_STORED if name in options.non_default()]
    if unsupported:
        raise UsageError(
            f"{', '.join(unsupported)}: not supported by {GENERATION_NAME} in the hub layout. Pass"
            " it to generate() instead"
        )


def write_hub_files(source: SourceModel, generation: GenerationOptions, folder: Path) -> None:
    """Write everything except the graphs.

    Raises:
        ModelError: the model has no tokenizer, or a file of its folder is malformed.
    """
    _write(folder / CONFIG_NAME, _configuration(source, folder))
    _write(folder / GENERATION_NAME, _generation(source, generation))
    source.write_tokenizer(folder)
    settings = read_config(source.folder / TOKENIZER_CONFIG_NAME, optional=True)
    _write(folder / TOKENIZER_CONFIG_NAME, _tokenizer_settings(settings))
    for name in _COPIED:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)


def _configuration(source: SourceModel, folder: Path) -> dict[str, Any]:
    shape = dataclasses.asdict(source.architecture)
    names = {
        "t5": "T5ForConditionalGeneration",
        "mt5": "MT5ForConditionalGeneration",
        "umt5": "UMT5ForConditionalGeneration",
    }
    # transformers.js derives a suffix of file names from the data type; that of fp32 is empty.
    script: dict[str, Any] = {"dtype": "fp32"}
    with_data = [path.name for path in sorted(folder.glob("*.onnx_data"))]
    if with_data:
        script["use_external_data_format"] = {name.removesuffix("_data"): 1 for name in with_data}
    return {
        "architectures": [names[source.architecture.model_type]],
        **source.config,
        **{name: shape[name] for name in (*_SHAPE, *_TOKENS)},
        "is_encoder_decoder": True,
        "transformers.js_config": script,
    }


def _generation(source: SourceModel, generation: GenerationOptions) -> dict[str, Any]:
    shape = dataclasses.asdict(source.architecture)
    stored = {k: v for k, v in generation.non_default().items() if k not in _NOT_STORED}
    values = source.generation.values
    saved = {k: v for k, v in values.items() if k not in ("max_length", "min_length")}
    # Keeps a list of several eos tokens.
    tokens = {name: saved.get(name, shape[name]) for name in _TOKENS}
    return {**saved, **stored, **tokens, "max_new_tokens": generation.max_new_tokens}


def _tokenizer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json with the class and key names that transformers 4 knows, too."""
    changed = dict(settings)
    if changed.get("tokenizer_class", "TokenizersBackend") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
        changed.pop("backend", None)
    extra = changed.get("extra_special_tokens")
    if isinstance(extra, list):
        changed["additional_special_tokens"] = changed.pop("extra_special_tokens")
    return changed


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
