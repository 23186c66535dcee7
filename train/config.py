"""What a training run is told: every hyperparameter, checked before anything heavy is loaded.

Fields that are None are decided by `resolved()`, by whether the model is new or trained already.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge.runtime.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "bf16", "fp32")
SHAPE_NAMES = ("tiny", "mini")
LONG_POLICIES = ("truncate", "drop", "chunk")
# What a from-scratch model and a pretrained one want differently.
_SCRATCH = {
    "learning_rate": 2e-3,
    "dropout": 0.05,
    "ema_share": 0.2,
    "rename_share": 0.5,
    "epochs": 8.0,
    "batch_size": 32,
    "adam_beta2": 0.99,
    "max_source_length": 256,
    "vocab_size": 2000,
}
_PRETRAINED = {
    "learning_rate": 3e-4,
    "dropout": None,  # as the model's own config says
    "ema_share": 0.0,
    "rename_share": 0.0,
    "epochs": 3.0,
    "batch_size": 16,
    "adam_beta2": 0.999,
    "max_source_length": 512,
    "vocab_size": None,  # the model's own
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Lengths are in tokens, `max_minutes` in minutes of training proper.

    Exactly one of `model` (hub id or folder) and `from_scratch` (a shape's name) is given. With
    `max_minutes` the learning rate reaches zero when the time or the epochs are used up, whichever
    comes first; without `epochs` the time alone decides.
    """

    data: str | Path
    output: str | Path
    model: str | None = None
    from_scratch: str | None = None
    force: bool = False
    # Data
    input_column: str = "input"
    target_column: str = "target"
    task_column: str = "task"
    prefix: str | None = None
    dev_share: float | None = None
    max_source_length: int | None = None
    max_target_length: int = 128
    long: str = "truncate"  # what happens to longer training rows; dev rows are cut, as at run time
    # Optimisation
    epochs: float | None = None
    max_minutes: float | None = None
    batch_size: int | None = None
    tokens_per_step: int | None = None  # in place of batch_size; inputs, targets and padding
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float | None = None
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    dropout: float | None = None
    ema_share: float | None = None  # last part of training whose weights are averaged; 0 is off
    ema_decay: float = 0.99  # per step
    rename_share: float | None = None  # of the rows whose rare words are renamed each time
    # Machine
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    seed: int = 0
    # From scratch
    vocab_size: int | None = None
    # Evaluation
    eval_batch_size: int = 64
    max_eval_rows: int | None = None

    @property
    def is_scratch(self) -> bool:
        return self.from_scratch is not None

    @property
    def tokens_per_batch(self) -> int | None:
        """What a batch may hold where `tokens_per_step` decides, else None."""
        if self.tokens_per_step is None:
            return None
        return max(1, self.tokens_per_step // self.gradient_accumulation)

    def validate(self) -> None:
        """Complain about everything that is wrong, at once.

        Raises:
            UsageError: one sentence per wrong value.
        """
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def resolved(self) -> TrainConfig:
        """The same run with every open field decided (`dropout` may stay the model's own).

        Raises:
            UsageError: as `validate`.
        """
        self.validate()
        defaults: dict[str, Any] = dict(_SCRATCH if self.is_scratch else _PRETRAINED)
        if self.from_scratch == "mini":
            defaults |= {"vocab_size": 4000, "learning_rate": 1e-3}
        if self.max_minutes is not None:
            defaults["epochs"] = math.inf
        chosen = {name: v for name, v in defaults.items() if getattr(self, name) is None}
        return replace(self, **chosen)

    def hyperparameters(self) -> dict[str, object]:
        """Every field by name, as JSON can hold it."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def _problems(self) -> list[str]:
        found: list[str] = []
        if (self.model is None) == (self.from_scratch is None):
            found.append("give either --model ID_OR_PATH or --from-scratch tiny|mini")
        _one_of(found, "--from-scratch", self.from_scratch, SHAPE_NAMES)
        _one_of(found, "--device", self.device, DEVICES)
        _one_of(found, "--precision", self.precision, PRECISIONS)
        _one_of(found, "--long", self.long, LONG_POLICIES)
        if self.vocab_size is not None and self.from_scratch is None:
            found.append("--vocab-size goes with --from-scratch only; a model brings its own")
        whole: tuple[str, ...] = (
            "max_source_length",
            "max_target_length",
            "batch_size",
            "tokens_per_step",
            "gradient_accumulation",
        )
        whole += ("threads", "vocab_size", "eval_batch_size", "max_eval_rows")
        for name in whole:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                found.append(f"{_option(name)} {value}: must be a whole number from 1")
        for name in ("epochs", "max_minutes", "learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{_option(name)} {value}: must be more than 0")
        if not 0 <= self.weight_decay < math.inf:
            found.append(f"--weight-decay {self.weight_decay}: must be 0 or more")
        for name in ("warmup_share", "adam_beta1", "adam_beta2", "label_smoothing", "dropout"):
            _share(found, name, getattr(self, name), below_one=True)
        for name in ("ema_share", "ema_decay", "rename_share"):
            _share(found, name, getattr(self, name), below_one=False)
        if self.dev_share is not None and not 0 < self.dev_share < 1:
            found.append(f"--dev-share {self.dev_share}: must lie between 0 and 1")
        columns = (self.input_column, self.target_column)
        if columns[0] == columns[1]:
            found.append(f"--input-column and --target-column are both {columns[0]!r}")
        return found


def _one_of(found: list[str], option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        found.append(f"{option} {value!r}: choose from {', '.join(known)}")


def _share(found: list[str], name: str, value: float | None, *, below_one: bool) -> None:
    if value is None:
        return
    if not 0 <= value <= 1 or (below_one and value == 1):
        found.append(f"{_option(name)} {value}: must be from 0 to {'below ' if below_one else ''}1")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    # JSON has no infinity.
    return None if isinstance(value, float) and math.isinf(value) else value


FIELD_NAMES = tuple(field.name for field in fields(TrainConfig))
