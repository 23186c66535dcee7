"""Checks of the resources of a run: memory, disk space, and the output folder."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edge.train.data.bucketing import plan_batches
from edge.train.preflight.checks import (
    FAILED,
    OK,
    SKIPPED,
    WARNING,
    Findings,
    PreflightContext,
)
from edge.train.preflight.memory_estimate import (
    BatchShape,
    activation_floats,
    available_memory,
    count_adapter_parameters,
    count_parameters,
    estimate_memory,
    format_gigabytes,
)
from edge.train.run_folder import check_output, refuse_unfinished

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from edge.train.config import ResolvedTrainConfig

_WARNING_RATIO = 0.8  # of the free memory: an estimate above it is a warning
_WEIGHT_BYTES = 4
_SMALL_FILES = 50 << 20  # bytes for tokenizer, record and configuration


def memory(context: PreflightContext) -> Findings:
    """Weights, gradients, optimizer states and the largest batch fit into the free memory."""
    config, device = context.config, context.device
    if context.model_config is None or device is None or not context.lengths:
        return
    model_config, parameters, trained = _weights(context.model_config, config)
    limits = (config.max_source_length, config.max_target_length)
    lengths = [(min(s, limits[0]), min(t, limits[1])) for s, t in context.lengths]
    plan = plan_batches(lengths, rows=config.batch_size, tokens=config.tokens_per_batch)
    shapes = {
        BatchShape(len(batch), max(lengths[n][0] for n in batch), max(lengths[n][1] for n in batch))
        for batch in plan
    }
    largest = max(shapes, key=lambda shape: activation_floats(model_config, shape))
    need = estimate_memory(
        model_config,
        largest,
        parameters=parameters,
        trainable=trained,
        averaged=bool(config.ema_ratio),
        precision=device.precision,
    )
    free = available_memory(device.device)
    batch = f"a batch of {largest.rows} rows, {largest.source} + {largest.target} tokens"
    detail = f"needs about {need} ({batch}); {format_gigabytes(free)} free on {device.device}"
    if need.total > free and _saves_memory(config):
        yield WARNING, f"{detail}: these options need less than the estimate, but maybe not enough"
    elif device.device == "cuda" and need.total - need.activations < free < need.total:
        yield WARNING, f"{detail}: batches will be halved until they fit"
    elif need.total > free:
        yield FAILED, f"{detail}: does not fit. Lower --batch-size or --tokens-per-step"
    else:
        yield (WARNING if need.total > _WARNING_RATIO * free else OK), detail


def _weights(
    model_config: PretrainedConfig, config: ResolvedTrainConfig
) -> tuple[PretrainedConfig, int, int]:
    """The trained model's configuration, all parameters in memory, and the trainable ones."""
    whole = count_parameters(model_config)
    if config.method != "full":
        adapter = count_adapter_parameters(model_config, config.lora_rank, config.lora_targets)
        return model_config, whole + adapter, adapter
    if config.decoder_layers is not None:
        student = copy.deepcopy(model_config)
        student.num_decoder_layers = config.decoder_layers
        trained = count_parameters(student)
        return student, whole + trained, trained
    return model_config, whole, whole


def _saves_memory(config: ResolvedTrainConfig) -> bool:
    """Whether the run uses options that the estimate does not take into account."""
    return config.gradient_checkpointing or config.method == "qlora" or config.optimizer != "adamw"


def disk(context: PreflightContext) -> Findings:
    """The model folder fits on the disk."""
    if context.model_config is None:
        return
    folder = Path(context.config.output).absolute()
    while not folder.exists():
        folder = folder.parent
    need = count_parameters(context.model_config) * _WEIGHT_BYTES + _SMALL_FILES
    free = shutil.disk_usage(folder).free
    detail = (
        f"the model needs about {format_gigabytes(need)}; {format_gigabytes(free)} free at {folder}"
    )
    yield (OK if need < free else FAILED), detail


def output(context: PreflightContext) -> Findings:
    """The output folder can be created, and no unfinished run uses it."""
    if not context.check_output:
        yield SKIPPED, "no --output was given"
        return
    config = context.config
    check_output(config)
    if not config.resume and not config.force:
        refuse_unfinished(Path(config.output))
    yield OK, str(context.config.output)
