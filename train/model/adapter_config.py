"""The configuration of a LoRA adapter, with every option of peft honored or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError, one_line
from edge.runtime.platform.json_file import read_json
from edge.runtime.printing import printable
from edge.runtime.text.regex_cost import matching_steps

CONFIG_NAME = "adapter_config.json"
_MAX_BYTES = 1_000_000

# The fields of peft's LoraConfig, by what happens to them. All others are refused if they are on.
HONORED = (
    "r",
    "lora_alpha",
    "bias",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "init_lora_weights",
    "trainable_token_indices",
)
# The names of the weights say which layers are adapted.
IMPLIED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# About where the adapter came from, how it started, or how it is run: merging does not need them.
WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",  # of Conv1D layers, which T5 has none of
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
)
# Initial weights that leave the base model as it is: the saved matrices are all there is.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
# These subtract the initial matrices from the base model, by a computation that peft repeats
# exactly when the adapter is loaded (PiSSA: Meng et al. 2024; OLoRA: Büyükakyüz 2024).
_EXACT_STARTS = ("pissa", "olora")
_MAX_ALPHA = 1e6  # those in use are below 1,000
_MAX_PATTERNS = 1_000  # more than any T5 has layers to adapt
_MAX_PATTERN_CHARS = 200
# peft tries every pattern at every layer. This bounds the steps of all patterns at one layer, in
# names of so many characters: some seconds for the largest T5.
_NAME_CHARS = 32
_MAX_STEPS = 100_000


def read_adapter_settings(folder: Path) -> dict[str, Any]:
    """Arguments of peft's LoraConfig from an adapter folder, without `target_modules`.

    Raises:
        ModelError: No LoRA adapter there, or an option that can't be honored.
    """
    path = folder / CONFIG_NAME
    try:
        content = read_json(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        named = sorted(inner.parent.name for inner in folder.glob(f"*/{CONFIG_NAME}"))
        hint = f". Name one of its adapters: {shortened(', '.join(named))}" if named else ""
        raise ModelError(
            f"{folder}: not an adapter folder; it has no {CONFIG_NAME}{hint}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ModelError(f"{path}: not an adapter's configuration ({reason})") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: not an adapter's configuration (not a JSON object)")
    kind = content.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{folder}: is a {shortened(str(kind))} adapter; only LORA adapters can be merged"
        )
    known = {*HONORED, *IMPLIED, *WITHOUT_EFFECT}
    unsupported = [name for name, value in content.items() if value and name not in known]
    if unsupported:
        raise ModelError(
            f"{folder}: uses {shortened(unsupported[0])}, which is not supported. Merge it with"
            " peft"
        )
    settings = {name: content[name] for name in HONORED if content.get(name) is not None}
    rank = settings.get("r")
    if type(rank) is not int or rank < 1:
        raise ModelError(f"{path}: rank r is {rank!r:.40}; it must be a positive whole number")
    if "lora_alpha" in content:  # also null, for which peft has no meaning
        _require_alpha(content["lora_alpha"], "lora_alpha", path)
    if not isinstance(settings.get("use_rslora", False), bool):
        raise ModelError(f"{path}: use_rslora must be true or false")
    for layer, value in _patterns(settings, "rank_pattern", path):
        if type(value) is not int or value < 1:
            raise ModelError(
                f"{path}: rank_pattern of {layer} is {value!r:.40}; it must be a positive whole"
                " number"
            )
    for layer, value in _patterns(settings, "alpha_pattern", path):
        _require_alpha(value, f"alpha_pattern of {layer}", path)
    if settings.get("bias", "none") != "none":
        raise ModelError(f"{folder}: has trained biases, but T5 has no biases")
    start = settings.get("init_lora_weights", True)
    if start in _PLAIN_STARTS:
        settings["init_lora_weights"] = True  # replaced by the saved matrices
    elif start not in _EXACT_STARTS:
        raise ModelError(
            f"{folder}: init_lora_weights {start!r:.40} changed the base model in a way that can't"
            " be repeated. Save the adapter with peft's path_initial_model_for_weight_conversion,"
            " which makes it a plain one"
        )
    return settings


def shortened(name: str) -> str:
    """A name from an adapter's files for an error message."""
    return printable(one_line(name, 100))


def _require_alpha(value: object, name: str, path: Path) -> None:
    """Check a numerator of the adapter's scale; a negative one subtracts the adapter, as in peft.

    Raises:
        ModelError: It is not a number, not finite, or 0.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 < abs(value) <= _MAX_ALPHA
    ):
        shown = "null" if value is None else f"{value!r:.40}"
        raise ModelError(
            f"{path}: {name} is {shown}; it must be a number other than 0, at most {_MAX_ALPHA:.0e}"
        )


def _patterns(settings: Mapping[str, Any], name: str, path: Path) -> Iterator[tuple[str, object]]:
    """The names of layers and the values of a pattern option, with the names shortened.

    peft uses the names as regular expressions: those that could take forever are refused.

    Raises:
        ModelError: It is not an object of such names.
    """
    patterns = settings.get(name, {})
    if not isinstance(patterns, Mapping) or len(patterns) > _MAX_PATTERNS:
        raise ModelError(
            f"{path}: {name} must be an object of at most {_MAX_PATTERNS:,} names of layers"
        )
    steps = 0.0
    for pattern, value in patterns.items():
        is_short = len(pattern) <= _MAX_PATTERN_CHARS
        steps += matching_steps(pattern, _NAME_CHARS) if is_short else math.inf
        is_slow = steps > _MAX_STEPS
        try:
            re.compile(rf"(.*\.)?({'' if is_slow else pattern})$")
        except re.error as error:
            raise ModelError(
                f"{path}: {name} has {shortened(pattern)}, which is not a regular expression"
                f" ({error})"
            ) from None
        if is_slow:
            raise ModelError(
                f"{path}: {name} has {shortened(pattern)}, which is too complex a regular"
                " expression. Write out the names of the layers"
            )
        yield shortened(pattern), value


def base_model_of(folder: Path) -> str:
    """The base model that an adapter folder names, or "BASE"."""
    try:
        name = read_json(folder / CONFIG_NAME, _MAX_BYTES).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        name = None
    return name if isinstance(name, str) and name else "BASE"


def refuse_adapter(folder: Path) -> None:
    """Reject a folder that holds an adapter in place of a model, or beside one.

    Raises:
        ModelError: It does; the message says how to merge it.
    """
    if not (folder / CONFIG_NAME).is_file():
        return
    merge = f"Merge it first: edge merge {base_model_of(folder)} {folder} --output MERGED"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: is an adapter, not a model. {merge}")
    raise ModelError(
        f"{folder}: holds an adapter ({CONFIG_NAME}) beside a model, and transformers would use"
        f" both. {merge}. Or delete {CONFIG_NAME} to use the model alone"
    )
