"""Checks of what a run needs: memory, disk, a place for its output."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge.runtime.atomic import check_destination
from edge.train.batches import plan_batches
from edge.train.memory import (
    Workload,
    activation_floats,
    available_memory,
    gigabytes,
    memory_need,
    parameters_of,
)
from edge.train.preflight import FAILED, OK, SKIPPED, WARNING, Findings, Subject

_TIGHT = 0.8  # of what is free: an estimate, so a need above it is worth a warning
_WEIGHT_BYTES = 4
_SMALL_FILES = 50 << 20  # tokenizer, record, configuration


def memory(subject: Subject) -> Findings:
    """Weights, gradients, optimiser and the largest batch fit into what is free."""
    settings, config, machine = subject.settings, subject.config, subject.machine
    if settings is None or machine is None or not subject.lengths:
        return
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
        parameters=parameters_of(settings),
        averaged=bool(config.ema_share),
        precision=machine.precision,
    )
    free = available_memory(machine.device)
    batch = f"a batch of {work.rows} rows, {work.source} + {work.target} tokens"
    detail = f"needs about {need} ({batch}); {gigabytes(free)} free on {machine.device}"
    if need.total > free:
        yield FAILED, f"{detail}: it can't fit; lower --batch-size or --tokens-per-step"
    else:
        yield (WARNING if need.total > _TIGHT * free else OK), detail


def disk(subject: Subject) -> Findings:
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


def output(subject: Subject) -> Findings:
    """Nothing is in the way of the output."""
    if not subject.looks_at_output:
        yield SKIPPED, "no --output was given"
        return
    check_destination(Path(subject.config.output), force=subject.config.force)
    yield OK, str(subject.config.output)
