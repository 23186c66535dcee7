"""Checks of the environment, the device, the data and the model of a run."""

from __future__ import annotations

from typing import Any

from edge.runtime.hub import snapshot_of
from edge.runtime.install import install_command
from edge.runtime.registry import is_installed
from edge.train.config import TrainConfig
from edge.train.data.pairs import load_splits, texts_of
from edge.train.device import check_libraries, choose_device
from edge.train.output.record import versions
from edge.train.preflight.checks import (
    FAILED,
    OK,
    WARNING,
    Findings,
    PreflightContext,
)

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "rouge_score", "sacrebleu")


def libraries(context: PreflightContext) -> Findings:
    """The libraries that training needs are installed."""
    missing = [name for name in LIBRARIES if not is_installed(name)]
    if missing:
        yield (
            FAILED,
            f"{', '.join(missing)} not installed; run: {install_command('train')}",
        )
        return
    yield OK, ", ".join(f"{name} {number}" for name, number in versions().items())


def device(context: PreflightContext) -> Findings:
    """The device is available and supports the precision and the optimizer."""
    import torch

    config = context.config
    context.device = chosen = choose_device(config.device, config.precision)
    check_libraries(config, chosen)
    threads = config.threads or torch.get_num_threads()
    yield OK, f"{chosen.device}, {chosen.precision}, {threads} thread(s)"


def data(context: PreflightContext) -> Findings:
    """All rows can be read."""
    context.splits = splits = load_splits(context.config)
    yield OK, f"{len(splits.train):,} training rows, {len(splits.dev):,} dev rows"
    for warning in splits.warnings:
        yield WARNING, warning
    column = context.config.task_column
    if column != TrainConfig.task_column and all(pair.task is None for pair in splits.train):
        yield WARNING, f"--task-column {column}: no training row has this column"


def model(context: PreflightContext) -> Findings:
    """The model's configuration and tokenizer load, and its weights fit them and are finite."""
    from edge.train.model.from_scratch import get_shape, shape_config
    from edge.train.model.loading import load_model_config, load_tokenizer
    from edge.train.model.local_folder import local_folder, require_listed_safetensors
    from edge.train.model.opening import new_tokenizer
    from edge.train.model.weight_files import checked_weights
    from edge.train.model.weights import require_finite, stored_weights

    config = context.config
    model_config: Any
    if config.model is not None:
        folder = local_folder(config.model, config.revision, weights=False)
        context.model_config = model_config = load_model_config(str(folder))
        context.tokenizer = load_tokenizer(config.tokenizer or str(folder))
        name = config.model
        if (commit := snapshot_of(folder)) is not None:
            require_listed_safetensors(folder)
            name = f"{commit[0]} @ {commit[1][:12]}"
        else:
            require_finite(stored_weights(checked_weights(folder).paths), config.model)
    else:
        if context.splits is None:
            return
        assert config.from_scratch is not None
        assert config.dropout is not None  # decided for a new model
        texts = texts_of(context.splits.train)
        context.tokenizer = tokenizer = new_tokenizer(config, texts, context.work_dir)
        context.model_config = model_config = shape_config(
            get_shape(config.from_scratch), vocab_size=len(tokenizer), dropout=config.dropout
        )
        name = f"from scratch ({config.from_scratch})"
    layers = f"{model_config.num_layers} encoder and {model_config.num_decoder_layers} decoder"
    yield OK, f"{name}: {model_config.model_type}, {layers} layers, width {model_config.d_model}"
