"""Low-rank adapters (LoRA, Hu et al. 2021; QLoRA, Dettmers et al. 2023) by way of peft.

Only safetensors are read, and of an adapter's own configuration only the fields that describe its
matrices: nothing in it can name code or another model to fetch.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, UsageError
from edge.runtime.platform.atomic import new_folder, readable_os_errors
from edge.runtime.platform.json_file import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edge.train.config import TrainConfig
    from edge.train.model.loading import Trainable

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What an adapter's configuration may say; anything else that is on is refused.
_READ = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "fan_in_fan_out")
_PATTERNS = ("rank_pattern", "alpha_pattern")
_UNREADABLE = ("use_dora", "modules_to_save", "layer_replication", "trainable_token_indices")
_MOST_CONFIG_BYTES = 1_000_000
_PREFIX = "base_model.model."


def linear_layers(model: PreTrainedModel) -> dict[str, list[str]]:
    """The linear layers of the blocks by their own name (q, wi_0, …), with their full names.

    The output head is left out: adapting it would cost as much as all the blocks together.
    """
    import torch

    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".block." in f".{name}":
            found.setdefault(name.rpartition(".")[2], []).append(name)
    return found


def add_adapter(trainable: Trainable, config: TrainConfig) -> None:
    """Freeze the model and give its linear layers adapters that are to be trained.

    Raises:
        UsageError: a name in `lora_targets` that the model has no linear layer of.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    there = linear_layers(trainable.model)
    targets = config.lora_targets or tuple(there)
    unknown = [name for name in targets if name not in there]
    if unknown:
        close = difflib.get_close_matches(unknown[0], list(there), n=1)
        raise UsageError(
            f"--lora-targets {','.join(unknown)}: the model has no such linear layers; it has"
            f" {', '.join(there)}" + (f". Did you mean {close[0]}?" if close else "")
        )
    assert config.lora_alpha is not None
    if config.method == "qlora":
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(
            trainable.model,
            use_gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    torch.manual_seed(config.seed)  # of the adapters' first weights
    trainable.model = get_peft_model(
        trainable.model,
        LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(targets),
        ),
    )


def save_adapter(trainable: Trainable, folder: Path) -> None:
    """Write the adapter alone, as peft does: adapter_config.json and safetensors."""
    from edge.train.model.loading import quiet

    with quiet(), readable_os_errors(folder):
        trainable.model.save_pretrained(str(folder))


def merge_trained(trainable: Trainable, config: TrainConfig, folder: Path) -> None:
    """Put the trained adapter into the weights; it lies in `folder` already.

    Under qlora the base is read anew: into 4-bit weights nothing can be added exactly.
    """
    from edge.train.model.loading import load_pretrained

    if config.method == "qlora":
        assert config.model is not None
        base = load_pretrained(config.model).model
        base.generation_config = trainable.model.generation_config
        trainable.model = load_adapter(base, folder).to(trainable.model.device)
    trainable.model = _merged(trainable.model)


def merge(base: str, adapter: Path, output: Path, *, force: bool = False) -> int:
    """Write `base` with `adapter` merged into it, a complete model folder; the adapter's weights.

    Raises:
        ModelError: no usable base model or adapter, or the adapter is of another base.
        OutputExistsError: the output is there already and `force` is off.
    """
    from edge.runtime.platform.atomic import check_destination
    from edge.train.model.loading import load_pretrained, quiet

    check_destination(output, force=force)
    loaded = load_pretrained(base)
    peft_model: Any = load_adapter(loaded.model, adapter)
    count = sum(w.numel() for n, w in peft_model.named_parameters() if ".lora_" in n)
    merged = _merged(peft_model)
    with new_folder(output, force=force) as folder, quiet():
        merged.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return count


def _merged(peft_model: Any) -> PreTrainedModel:
    """The base with the adapter in its weights.

    Its `tie_word_embeddings` stays: in transformers 5 it is True of every T5, also of one with a
    head of its own, and peft takes that for something that merging has changed.
    """
    from edge.train.model.loading import quiet

    tied = peft_model.config.tie_word_embeddings
    with quiet():
        model: PreTrainedModel = peft_model.merge_and_unload()
    model.config.tie_word_embeddings = tied
    return model


def load_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """`model` with the adapter of `folder` around it.

    Raises:
        ModelError: there is no LoRA adapter in safetensors, or it is of another base.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict

    settings = _adapter_settings(folder)
    weights = _adapter_weights(folder)
    targets = _require_fit(model, weights, settings, folder)
    settings["target_modules"] = targets
    peft_model = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **settings))
    report = set_peft_model_state_dict(peft_model, weights)
    if report.unexpected_keys:
        raise ModelError(
            f"{folder}: holds weights that are no part of a LoRA adapter, such as"
            f" {report.unexpected_keys[0]}"
        )
    return peft_model


def _adapter_settings(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        content = read_json(path, _MOST_CONFIG_BYTES)
        kind = content.get("peft_type")
    except OSError as error:
        raise ModelError(f"{folder}: no adapter folder, it has no {_CONFIG}") from error
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: is no adapter's configuration") from error
    if kind != "LORA":
        raise ModelError(f"{folder}: is a {kind} adapter; only LORA can be merged here")
    unreadable = [name for name in _UNREADABLE if content.get(name)]
    if unreadable:
        raise ModelError(f"{folder}: uses {unreadable[0]}, which can't be merged here")
    settings = {name: content[name] for name in _READ if content.get(name) is not None}
    settings |= {name: content[name] for name in _PATTERNS if content.get(name)}
    rank = settings.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(f"{path}: its rank r is {rank!r}")
    if settings.get("bias", "none") != "none":
        raise ModelError(f"{folder}: trains biases, which T5 has none of")
    return settings


def _adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = any(folder.glob("*.bin"))
        reason = (
            "its weights are in a pickle (.bin), which may run code; make it safetensors"
            if pickled
            else f"it has no {_WEIGHTS}"
        )
        raise ModelError(f"{folder}: {reason}")
    try:
        loaded: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: can't be read ({error})") from error
    return loaded


def _require_fit(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], settings: dict[str, Any], folder: Path
) -> list[str]:
    """The names of the layers that the adapter is for, if the model has them all, as wide.

    Raises:
        ModelError: the adapter is of a base of another shape; names the first layer.
    """
    layers = dict(model.named_modules())
    targets = set()
    for name, weight in weights.items():
        layer, _, part = name.removeprefix(_PREFIX).partition(".lora_")
        if not part or part.removesuffix(".weight") not in ("A", "B") or weight.dim() != 2:
            raise ModelError(f"{folder}: {name} is no weight of a LoRA adapter")
        module: Any = layers.get(layer)
        width = getattr(module, "in_features" if part.startswith("A") else "out_features", None)
        wants = weight.shape[1 if part.startswith("A") else 0]
        if width != wants:
            has = "has no such layer" if width is None else f"has {width} there"
            raise ModelError(
                f"{folder}: the adapter is of another base: it wants {wants} features at {layer},"
                f" and this model {has}"
            )
        targets.add(layer)
    incomplete = [t for t in targets if f"{_PREFIX}{t}.lora_A.weight" not in weights]
    incomplete += [t for t in targets if f"{_PREFIX}{t}.lora_B.weight" not in weights]
    if incomplete or not targets:
        what = f"half of the adapter at {incomplete[0]} is" if incomplete else "all weights are"
        raise ModelError(f"{folder}: {what} missing")
    if not settings.get("rank_pattern"):
        ranks = {w.shape[0] for name, w in weights.items() if ".lora_A" in name}
        if ranks != {settings["r"]}:
            raise ModelError(
                f"{folder}: its weights are of rank {min(ranks)}, its configuration says"
                f" {settings['r']}"
            )
    return sorted(targets)
