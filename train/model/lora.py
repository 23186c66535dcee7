"""Low-rank adapters (LoRA, Hu et al. 2021; QLoRA, Dettmers et al. 2023) with peft.

Only safetensors are read. An adapter's configuration can neither name code to run nor another model
to download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, UsageError, library_errors
from edge.runtime.platform.atomic import new_folder
from edge.runtime.platform.destination import check_destination
from edge.runtime.platform.os_errors import readable_os_errors
from edge.runtime.registry import unknown_name
from edge.train.model.adapter_config import read_adapter_settings, shortened
from edge.train.model.adapter_weights import read_adapter_weights, require_fit
from edge.train.model.lfs import refuse_lfs_pointers
from edge.train.model.loading import load_pretrained, quiet
from edge.train.model.token_rows import (
    OPTION,
    adapter_rows,
    extend_like,
    is_row_weight,
    restore_ties,
    rows_to_train,
    separate_head,
    take_adapter_tokenizer,
)
from edge.train.model.weights import require_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edge.train.config import ResolvedTrainConfig
    from edge.train.model.loading import Trainable


def linear_layers(model: PreTrainedModel) -> dict[str, list[str]]:
    """The linear layers of the blocks: their full names by last part (q, wi_0, …).

    The output head is left out: an adapter for it would be as large as those of all blocks.
    """
    import torch

    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".block." in f".{name}":
            found.setdefault(name.rpartition(".")[2], []).append(name)
    return found


def chosen_layers(
    layers: Mapping[str, Sequence[str]], targets: Sequence[str] | None
) -> tuple[str, ...]:
    """The last parts of the names of the layers to adapt, by default all.

    Args:
        layers: As `linear_layers` returns.
        targets: `lora_targets` of the configuration.

    Raises:
        UsageError: `targets` names a linear layer that the model does not have.
    """
    chosen = tuple(targets or layers)
    unknown = next((name for name in chosen if name not in layers), None)
    if unknown is not None:
        raise UsageError(f"--lora-targets: {unknown_name('linear layer', unknown, tuple(layers))}")
    return chosen


def add_adapter(trainable: Trainable, config: ResolvedTrainConfig) -> None:
    """Freeze the model and add trainable adapters to its linear layers.

    Raises:
        UsageError: `lora_targets` names a linear layer that the model does not have.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = chosen_layers(linear_layers(trainable.model), config.lora_targets)
    if config.method == "qlora":
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(
            trainable.model,
            use_gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    separate_head(trainable.model)
    torch.manual_seed(config.seed)  # initial weights of the adapters
    trainable.model = get_peft_model(
        trainable.model,
        LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(targets),
            trainable_token_indices=rows_to_train(trainable.model, trainable.new_ids),
        ),
    )


def save_adapter(trainable: Trainable, folder: Path) -> None:
    """Write the adapter in peft's format, with the tokenizer if pieces were added to it."""
    with quiet(), readable_os_errors(folder):
        trainable.model.save_pretrained(str(folder), save_embedding_layers=False)
        if trainable.new_ids:
            trainable.tokenizer.save_pretrained(str(folder))


def merge_trained(trainable: Trainable, config: ResolvedTrainConfig, folder: Path) -> None:
    """Merge the trained adapter, saved in `folder`, into the weights.

    For qlora the base model is loaded again in fp32, because merging into quantized weights is not
    exact.
    """
    if config.method == "qlora":
        assert config.model is not None
        loaded = load_pretrained(
            config.model, revision=config.revision, tokenizer_folder=config.tokenizer
        )
        extend_like(loaded, trainable.tokenizer.backend_tokenizer.to_str(), folder)
        loaded.record_characters(trainable.added_characters)
        base = loaded.model
        base.generation_config = trainable.model.generation_config
        trainable.model = load_adapter(base, folder).to(trainable.model.device)
    trainable.model = _merged(trainable.model, folder)


def merge(base: str, adapter: Path, output: Path, *, force: bool = False) -> int:
    """Merge an adapter into its base model and write a complete model folder.

    Returns:
        The number of the adapter's parameters.

    Raises:
        ModelError: The base model or the adapter is not usable, or the two do not match.
        OutputExistsError: The output exists and `force` is off, or holds an input.
    """
    check_destination(output, force=force, inputs=[base, adapter])
    loaded = load_pretrained(base)
    take_adapter_tokenizer(loaded, adapter)
    peft_model: Any = load_adapter(loaded.model, adapter)
    count: int = sum(w.numel() for n, w in peft_model.named_parameters() if ".lora_" in n)
    merged = _merged(peft_model, adapter)
    with new_folder(output, force=force) as folder, quiet():
        merged.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return count


def _merged(peft_model: Any, folder: Path) -> PreTrainedModel:
    """The base model with the adapter merged into its weights.

    Keeps `tie_word_embeddings`, which peft would change: in transformers 5 it is True for every T5,
    even for one with a separate output head.

    Raises:
        ModelError: A merged weight is NaN or infinite.
    """
    tied = peft_model.config.tie_word_embeddings
    with quiet():
        model: PreTrainedModel = peft_model.merge_and_unload()
    restore_ties(model)
    model.config.tie_word_embeddings = tied
    require_finite(
        model.named_parameters(),
        f"{folder}: merged into the base model",
        "the adapter's weights or its lora_alpha are too large",
    )
    return model


def load_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """`model` wrapped as a peft model with the adapter of `folder`.

    Raises:
        ModelError: The folder has no LoRA adapter in safetensors, or it does not fit the model.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict

    refuse_lfs_pointers(folder)
    settings = read_adapter_settings(folder)
    weights = read_adapter_weights(folder)
    settings[OPTION] = adapter_rows(model, settings, weights, folder)
    layers = {name: weight for name, weight in weights.items() if not is_row_weight(name)}
    settings["target_modules"] = require_fit(model, layers, settings, folder)
    separate_head(model)
    with library_errors(ModelError, folder, "peft can't load it"), quiet():
        peft_model = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **settings))
        report = set_peft_model_state_dict(peft_model, weights)
    if report.unexpected_keys:
        raise ModelError(
            f"{folder}: contains weights that are not part of a LoRA adapter, such as"
            f" {shortened(report.unexpected_keys[0])}"
        )
    return peft_model
