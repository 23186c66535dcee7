"""Checks of what a run needs: memory, disk, a place for its output."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.platform.atomic import check_destination
from edge.train.data.bucketing import plan_batches
from edge.train.preflight import FAILED, OK, SKIPPED, WARNING, Findings, PreflightContext
from edge.train.preflight.memory_estimate import (
    Workload,
    activation_floats,
    adapter_parameters,
    available_memory,
    gigabytes,
    memory_need,
    parameters_of,
)
from edge.train.run_folder import refuse_unfinished

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from edge.train.config import TrainConfig

_TIGHT = 0.8  # of what is free: an estimate, so a need above it is worth a warning
_WEIGHT_BYTES = 4
_SMALL_FILES = 50 << 20  # tokenizer, record, configuration


def memory(subject: PreflightContext) -> Findings:
    """Weights, gradients, optimizer and the largest batch fit into what is free."""
    config, machine = subject.config, subject.machine
    if subject.settings is None or machine is None or not subject.lengths:
        return
    settings, parameters, trained = _weights(subject.settings, config)
    limits = (config.max_source_length or 0, config.max_target_length)
    lengths = [(min(s, limits[0]), min(t, limits[1])) for s, t in subject.lengths]
    plan = plan_batches(lengths, rows=config.batch_size, tokens=config.tokens_per_batch)
    works = {
        Workload(len(batch), max(lengths[n][0] for n in batch), max(lengths[n][1] for n in batch))
        for batch in plan
    }
    work = max(works, key=lambda work: activation_floats(settings, work))
    need = memory_need(
        settings,
        work,
        parameters=parameters,
        trainable=trained,
        averaged=bool(config.ema_ratio),
        precision=machine.precision,
    )
    free = available_memory(machine.device)
    batch = f"a batch of {work.rows} rows, {work.source} + {work.target} tokens"
    detail = f"needs about {need} ({batch}); {gigabytes(free)} free on {machine.device}"
    if need.total > free and _saves_memory(config):
        yield WARNING, f"{detail}: less than that with these options, but maybe not enough less"
    elif machine.device == "cuda" and need.total - need.activations < free < need.total:
        yield WARNING, f"{detail}: batches will be halved until they fit"
    elif need.total > free:
        yield FAILED, f"{detail}: it can't fit; lower --batch-size or --tokens-per-step"
    else:
        yield (WARNING if need.total > _TIGHT * free else OK), detail


def _weights(settings: PretrainedConfig, config: TrainConfig) -> tuple[PretrainedConfig, int, int]:
    """The model that is trained, how many weights are in memory, and how many are trained."""
    whole = parameters_of(settings)
    if config.method != "full":
        adapter = adapter_parameters(settings, config.lora_rank, config.lora_targets)
        return settings, whole + adapter, adapter
    if config.decoder_layers is not None:
        student = copy.deepcopy(settings)
        student.num_decoder_layers = config.decoder_layers
        trained = parameters_of(student)
        return student, whole + trained, trained
    return settings, whole, whole


def _saves_memory(config: TrainConfig) -> bool:
    """Whether the run needs less than the estimate, which knows nothing of these options."""
    return config.gradient_checkpointing or config.method == "qlora" or config.optimizer != "adamw"


def disk(subject: PreflightContext) -> Findings:
    """The model folder fits where it is to be written."""
    if subject.settings is None:
        return
    place = Path(subject.config.output).absolute()
    while not place.exists():
        place = place.parent
    need = parameters_of(subject.settings) * _WEIGHT_BYTES + _SMALL_FILES
    free = shutil.disk_usage(place).free
    detail = f"the model takes about {gigabytes(need)}, {gigabytes(free)} free at {place}"
    yield (OK if need < free else FAILED), detail


def output(subject: PreflightContext) -> Findings:
    """Nothing is in the way of the output."""
    if not subject.looks_at_output:
        yield SKIPPED, "no --output was given"
        return
    config = subject.config
    check_destination(Path(config.output), force=config.force)
    if not config.resume and not config.force:
        refuse_unfinished(Path(config.output))
    yield OK, str(subject.config.output)
