"""What stands beside the graphs in the hub's layout: configuration, generation, tokenizer.

They are the source folder's own, written so that transformers 4 (which Optimum needs), transformers
5 and transformers.js read them alike.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.export.source import SourceModel, read_config
from edge.runtime.errors import UsageError
from edge.runtime.options import GenerationOptions

CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
_COPIED = ("special_tokens_map.json", "added_tokens.json", "spiece.model")
# What a T5's configuration may leave to defaults, which transformers.js does not know.
_SHAPE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers")
_TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
# Options of ours that generate() of Optimum and transformers.js takes from no file.
_NOT_STORED = ("seed", "stop_strings", "prompt_lookup_num_tokens")


def check_generation(options: GenerationOptions) -> None:
    """Refuse generation defaults that generation_config.json can't hold.

    Raises:
        UsageError: names them.
    """
    lost = [name for name in _NOT_STORED if name in options.non_default()]
    if lost:
        raise UsageError(
            f"{', '.join(lost)}: no place for it in the hub layout's {GENERATION_NAME}; give it"
            " to generate() where the model runs"
        )


def write_hub_files(source: SourceModel, generation: GenerationOptions, folder: Path) -> None:
    """Write everything but the graphs.

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
    names = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}
    # transformers.js chooses a file name's ending by the data type; "fp32" has none.
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
    saved = {k: v for k, v in source.generation.items() if k not in ("max_length", "min_length")}
    # A list of eos tokens stays one.
    tokens = {name: saved.get(name, shape[name]) for name in _TOKENS}
    return {**saved, **stored, **tokens, "max_new_tokens": generation.max_new_tokens}


def _tokenizer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json in words that transformers 4 knows as well."""
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
