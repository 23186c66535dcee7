"""The configuration of a LoRA adapter, with every option of peft honored or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtime.errors import ModelError
from edge.runtime.platform.json_file import read_json

CONFIG_NAME = "adapter_config.json"
_MAX_BYTES = 1_000_000

# The fields of peft's LoraConfig, by what happens to them.
HONORED = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "use_rslora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "init_lora_weights",
    "trainable_token_indices",
)
# The names of the weights say which layers are adapted.
IMPLIED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# Refused unless they are off.
REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
# About where the adapter came from, how it started, or how it is run: merging does not need them.
WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
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


def read_adapter_settings(folder: Path) -> dict[str, Any]:
    """Arguments of peft's LoraConfig from an adapter folder, without `target_modules`.

    Raises:
        ModelError: No LoRA adapter there, or an option that can't be honored.
    """
    path = folder / CONFIG_NAME
    try:
        content = read_json(path, _MAX_BYTES)
    except OSError as error:
        raise ModelError(f"{folder}: not an adapter folder; it has no {CONFIG_NAME}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not an adapter's configuration") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: not an adapter's configuration")
    kind = content.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{folder}: is a {kind} adapter; only LORA adapters can be merged")
    known = {*HONORED, *IMPLIED, *WITHOUT_EFFECT}
    unsupported = [name for name, value in content.items() if value and name not in known]
    if unsupported:
        raise ModelError(
            f"{folder}: uses {unsupported[0]}, which is not supported. Merge it with peft"
        )
    settings = {name: content[name] for name in HONORED if content.get(name) is not None}
    rank = settings.get("r")
    if type(rank) is not int or rank < 1:
        raise ModelError(f"{path}: rank r is {rank!r}; it must be a positive whole number")
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


def base_model_of(folder: Path) -> str:
    """The base model that an adapter folder names, or "BASE"."""
    try:
        name = read_json(folder / CONFIG_NAME, _MAX_BYTES).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        name = None
    return name if isinstance(name, str) and name else "BASE"


def refuse_adapter(folder: Path) -> None:
    """Reject a folder that holds an adapter in place of a model.

    Raises:
        ModelError: It does; the message says how to merge it.
    """
    if (folder / CONFIG_NAME).is_file() and not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: is an adapter, not a model. Merge it first:"
            f" edge merge {base_model_of(folder)} {folder} --output MERGED"
        )
