"""Everything that can be known to go wrong, looked at before a training run begins.

Every check runs, whatever the others found, so that all there is to mend is told at once. Weights
are not loaded: configuration, tokenizer and rows are enough.
"""

from __future__ import annotations

import importlib.util
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import EdgeError, PreflightError
from edge.train.config import TrainConfig
from edge.train.data import Pair, Splits, load_splits
from edge.train.device import DeviceConfig, check_libraries, choose_machine
from edge.train.output.record import versions

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "rouge_score", "sacrebleu")
OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
_SAMPLE = 20_000  # rows that are tokenized; more tell nothing new
_TOO_MANY = 0.2  # of the rows: above, a flaw fails the check; below, it is a warning


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `status` is ok, warning, failed or skipped."""

    name: str
    status: str
    detail: str


@dataclass
class PreflightContext:
    """What the checks find out on the way; None where that failed."""

    config: TrainConfig  # resolved
    workplace: Path
    looks_at_output: bool
    machine: DeviceConfig | None = None
    splits: Splits | None = None
    settings: PretrainedConfig | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    train_pairs: list[Pair] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)  # of train_pairs, uncut


Findings = Iterator[tuple[str, str]]  # status, detail


def preflight(config: TrainConfig, *, looks_at_output: bool = True) -> list[Check]:
    """Run every check on what `config` would train.

    Raises:
        UsageError: hyperparameters that can't be used.
    """
    from edge.train.preflight import resources as room
    from edge.train.preflight import text

    steps: list[tuple[str, Callable[[PreflightContext], Findings]]] = [
        ("environment", _environment),
        ("device", _device),
        ("data", _data),
        ("model", _model),
        ("tokenizer", text.special_tokens),
        ("round trip", text.round_trip),
        ("lengths", text.lengths_in_range),
        ("output cap", text.output_cap),
        ("evaluation parity", text.evaluation_parity),
        ("memory", room.memory),
        ("disk", room.disk),
        ("output", room.output),
    ]
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="edge-check-") as workplace:
        subject = PreflightContext(config.resolved(), Path(workplace), looks_at_output)
        for name, look in steps:
            try:
                found = [Check(name, status, detail) for status, detail in look(subject)]
            except EdgeError as error:
                found = [Check(name, FAILED, str(error))]
            checks += found or [Check(name, SKIPPED, "not looked at, because of the above")]
            if name == "environment" and checks[-1].status == FAILED:
                break  # nothing else can run
    return checks


def require_ready(config: TrainConfig) -> None:
    """Refuse a run that a check fails.

    Raises:
        PreflightError: everything that failed, in one line.
    """
    failed = [check for check in preflight(config) if check.status == FAILED]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise PreflightError(f"{reasons} (edge check shows every check; --no-check passes over it)")


def share_status(count: int, of: int) -> str:
    """How bad it is that `count` of the rows have a flaw."""
    return OK if not count else FAILED if count > _TOO_MANY * of else WARNING


def _environment(subject: PreflightContext) -> Findings:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        yield (
            FAILED,
            f"{', '.join(missing)} not installed; get them with: pip install 'edge-t5[train]'",
        )
        return
    yield OK, ", ".join(f"{name} {number}" for name, number in versions().items())


def _device(subject: PreflightContext) -> Findings:
    import torch

    config = subject.config
    subject.machine = machine = choose_machine(config.device, config.precision)
    check_libraries(config, machine)
    threads = config.threads or torch.get_num_threads()
    yield OK, f"{machine.device}, {machine.precision}, {threads} thread(s)"


def _data(subject: PreflightContext) -> Findings:
    subject.splits = splits = load_splits(subject.config)
    yield OK, f"{len(splits.train):,} training rows, {len(splits.dev):,} dev rows"
    for warning in splits.warnings:
        yield WARNING, warning


def _model(subject: PreflightContext) -> Findings:
    from edge.train.model.from_scratch import shape_config, shape_named
    from edge.train.model.loading import load_settings, load_tokenizer, new_tokenizer

    config = subject.config
    settings: Any
    if config.model is not None:
        subject.settings = settings = load_settings(config.model)
        subject.tokenizer = tokenizer = load_tokenizer(config.model)
        _weights_are_safe(config.model)
        name = config.model
    else:
        if subject.splits is None:
            return
        assert config.from_scratch is not None
        assert config.dropout is not None
        texts = [text for pair in subject.splits.train for text in (pair.source, pair.target)]
        subject.tokenizer = tokenizer = new_tokenizer(config, texts, subject.workplace)
        shape = shape_named(config.from_scratch)
        subject.settings = settings = shape_config(
            shape, vocab_size=len(tokenizer), dropout=config.dropout
        )
        name = f"from scratch ({config.from_scratch})"
    if subject.splits is not None:
        subject.train_pairs = sample(subject.splits.train)
        subject.lengths = pair_lengths(subject.train_pairs, tokenizer)
    layers = f"{settings.num_layers} encoder and {settings.num_decoder_layers} decoder layers"
    yield OK, f"{name}: {settings.model_type}, {layers}, width {settings.d_model}"


def _weights_are_safe(name: str) -> None:
    """Say early what loading would refuse; a hub id is looked at when it is fetched."""
    from edge.runtime.errors import ModelError

    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        reason = "no model.safetensors"
        if any(folder.glob("*.bin")):
            reason = "its weights are in a pickle (.bin), which may run code; make it safetensors"
        raise ModelError(f"{name}: {reason}")


def sample(pairs: list[Pair]) -> list[Pair]:
    """The pairs, or as many of them as tell enough: the same each time."""
    return pairs if len(pairs) <= _SAMPLE else random.Random(0).sample(pairs, _SAMPLE)


def pair_lengths(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Tokens of each input and target, </s> counted."""
    columns = [
        [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
        for texts in ([pair.source for pair in pairs], [pair.target for pair in pairs])
    ]
    return [*zip(*columns, strict=True)]
